// Requests to the admin API with the token stored in this tab.

const TOKEN = "edgeproxy.token";
const RESPONSE_MILLISECONDS = 8000;

/** A failed request; `status` 0: the edge did not respond. */
class ApiError extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

async function call(method, path, body) {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null) throw new ApiError(401, "You have signed out");
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(RESPONSE_MILLISECONDS),
      credentials: "omit",
      redirect: "error",
    });
    text = await response.text();
  } catch {
    throw new ApiError(0, "The edge does not respond");
  }
  let found = null;
  try {
    found = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, "The response is not from an edge");
  }
  if (response.ok) return found;
  throw new ApiError(response.status, found?.detail ?? response.statusText, found?.errors ?? []);
}

const get = (path) => call("GET", path);
const segment = encodeURIComponent;
