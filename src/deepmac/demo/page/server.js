// Requests to the server.

import { Refusal, state } from "./state.js";

export async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "The server does not answer. Is `deepmac demo` still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Refusal(response.status, said.error ?? `The server answered ${response.status}.`);
}

export const post = (path, value) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value),
});

export async function upload(file, size) {
  const { megabytes } = state.about.limits;
  if (file.size > megabytes * 1e6)
    throw new Refusal(413, `This file has ${(file.size / 1e6).toFixed(1)} MB, more than the limit ` +
      `of ${megabytes} MB. Save the picture smaller and open it again.`);
  const query = size ? `?size=${size.join("x")}` : "";
  return (await ask(`pictures${query}`, { method: "POST", body: file })).json();
}

// The server holds few pictures; one that it let go is sent again.
export async function withPicture(entry, job) {
  if (!entry.server) entry.server = (await upload(entry.file, entry.size)).id;
  try {
    return await job(entry.server);
  } catch (error) {
    if (error.status !== 410) throw error;
    entry.server = (await upload(entry.file, entry.size)).id;
    return job(entry.server);
  }
}
