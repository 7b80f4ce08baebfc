// Requests to the API, and who the page may act as.

const BASE = "api/v1/";

/** What the API answered that was no success; `detail` says it in words. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const session = {role: null, name: "", csrf: "", byToken: false};

/** Ask who this page is; its role is null when a token is needed. Raises Refused. */
export async function identify() {
  Object.assign(session, await call("GET", "session"));
}

export async function signIn(token) {
  await call("POST", "session", {body: {token}});
  await identify();
  session.byToken = true;
}

export async function signOut() {
  await call("DELETE", "session");
  session.role = null;
}

/**
 * One request. The answer's JSON, or null when it has none. A change whose CSRF token is out of date (the instance was restarted)
 * asks for the new one, and is sent once more.
 */
export async function call(method, path, {body, match} = {}) {
  const answer = await send(method, path, body, match);
  if (answer.status === 403 && method !== "GET" && path !== "session") {
    const before = session.csrf;
    await identify();
    if (session.csrf !== before) return result(await send(method, path, body, match));
  }
  return result(answer);
}

async function send(method, path, body, match) {
  const headers = {Accept: "application/json"};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && session.csrf) headers["X-CSRF-Token"] = session.csrf;
  if (match) headers["If-Match"] = match;
  try {
    return await fetch(BASE + path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin"});
  } catch (error) {
    throw new Refused(0, "The instance did not answer. Nothing is known to have changed.", {cause: error});
  }
}

async function result(answer) {
  const isJSON = (answer.headers.get("Content-Type") ?? "").includes("json");
  const data = isJSON ? await answer.json() : null;
  if (!answer.ok) throw new Refused(answer.status, data?.detail || data?.title || `${answer.status} ${answer.statusText}`);
  return data;
}

export const pathOf = ({pool, address}) => `pools/${encodeURIComponent(pool)}/servers/${encodeURIComponent(address)}`;
