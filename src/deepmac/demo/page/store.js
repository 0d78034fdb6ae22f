// What the browser keeps: the boxes of every picture, and the pictures that are open. All of it
// may be refused; then nothing is kept.

const ROOM = 300e6; // bytes of open pictures
const MOST = 1000; // pictures whose boxes are kept

let ready = null; // the database, once it is open

const opened = new Promise((done, failed) => {
  const request = indexedDB.open("deepmac-demo", 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("boxes");
    request.result.createObjectStore("files");
  };
  request.onsuccess = () => done(ready = request.result);
  request.onerror = () => failed(request.error);
  request.onblocked = () => failed(new Error("blocked"));
});
opened.catch(() => {});

// What is written is on its way when this returns: the page may be left at any moment.
async function run(name, mode, job) {
  try {
    const transaction = (ready ?? (await opened)).transaction(name, mode);
    const request = job(transaction.objectStore(name));
    if (mode === "readwrite") transaction.commit();
    return await new Promise((done, failed) => {
      if (mode === "readonly") request.onsuccess = () => done(request.result);
      else transaction.oncomplete = () => done(true);
      transaction.onerror = transaction.onabort = () => failed(transaction.error);
    });
  } catch {
    return undefined;
  }
}

export const readBoxes = (key) => run("boxes", "readonly", (store) => store.get(key));
export const keepBoxes = (key, value) =>
  run("boxes", "readwrite", (store) => store.put({ ...value, time: Date.now() }, key));

export async function tidy() {
  const keys = await run("boxes", "readonly", (store) => store.getAllKeys()) ?? [];
  if (keys.length <= MOST) return;
  const all = await run("boxes", "readonly", (store) => store.getAll());
  const old = keys.map((key, i) => [all[i]?.time ?? 0, key]).sort(([a], [b]) => a - b);
  for (const [, key] of old.slice(0, keys.length - MOST))
    await run("boxes", "readwrite", (store) => store.delete(key));
}

// The open pictures in their order, as many as there is room for.
export async function keepFiles(entries, at) {
  let room = ROOM;
  const kept = entries.filter((entry) => entry.file && (room -= entry.file.size) > 0);
  const list = kept.map(({ file, name }) => ({ file, name }));
  const shown = Math.max(0, kept.indexOf(entries[at]));
  return run("files", "readwrite", (store) => store.put({ list, shown }, "open"));
}

export const readFiles = () => run("files", "readonly", (store) => store.get("open"));

// A name for a picture that only its content decides (FNV-1a; no secure context needed).
export async function keyOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let hash = 0x811c9dc5, second = 0x9747b28c;
  for (let i = 0; i < bytes.length; i++) {
    hash = Math.imul(hash ^ bytes[i], 0x01000193);
    if (!(i & 7)) second = Math.imul(second ^ hash, 0x85ebca6b);
  }
  return `${bytes.length}-${(hash >>> 0).toString(36)}${(second >>> 0).toString(36)}`;
}
