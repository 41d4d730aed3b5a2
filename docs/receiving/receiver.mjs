// A webhook receiver: verify, keep, answer; the work comes afterwards. Needs: npm install standardwebhooks
import { randomUUID } from "node:crypto";
import { link, mkdir, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const inbox = process.env.INBOX ?? "inbox";
const BODY_BYTES_MAX = 1_048_576;

// Once for each id, whole or not at all. With a database: INSERT … ON CONFLICT DO NOTHING, then commit.
async function keep(id, body) {
  const part = join(inbox, `.${randomUUID()}`);
  await writeFile(part, body);
  try {
    await link(part, join(inbox, id));
  } catch (error) {
    if (error.code !== "EEXIST") throw error; // it came before, and our answer was lost
  } finally {
    await unlink(part);
  }
}

// The bytes as they came: JSON that is parsed and written again has others.
async function rawBody(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > BODY_BYTES_MAX) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function status(request) {
  if (request.method !== "POST") return 405;
  const body = await rawBody(request);
  if (body === null) return 413;
  try {
    webhook.verify(body, request.headers);
  } catch {
    return 400;
  }
  await keep(request.headers["webhook-id"], body);
  return 204;
}

await mkdir(inbox, { recursive: true });
const server = createServer((request, response) => {
  status(request)
    .catch((error) => (console.error(error), 500)) // not kept: it will be sent again
    .then((code) => response.writeHead(code, code === 413 ? { Connection: "close" } : {}).end());
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
