// The admin API, as the bearer of the token that this tab keeps.

const TOKEN = "edgeproxy.token";
const ANSWER_MILLISECONDS = 8000;

/** What the edge answered that is not what was asked for; `status` 0: it did not answer. */
class Refused extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }
}

async function call(method, path, body) {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null) throw new Refused(401, "Signed out meanwhile");
  const headers = { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response, text;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MILLISECONDS),
      credentials: "omit",
      redirect: "error",
    });
    text = await response.text();
  } catch {
    throw new Refused(0, "The edge does not answer");
  }
  let found = null;
  try {
    found = text ? JSON.parse(text) : null;
  } catch {
    throw new Refused(response.status, "What answered is no edge");
  }
  if (response.ok) return found;
  throw new Refused(response.status, found?.detail ?? response.statusText, found?.errors ?? []);
}

const get = (path) => call("GET", path);
const segment = encodeURIComponent;
