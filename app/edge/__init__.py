"""One serving process: built, started, reloaded, watched and stopped."""
