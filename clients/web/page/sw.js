// Keeps the page itself, so that it opens without a network. Never answers: those are asked for.

// of all files below; `make page` writes it, and a new one brings all of them anew
const VERSION = "96bdc234edd1";
const SHELL = [
  "/",
  "/icon-any.svg",
  "/static/app.css",
  "/static/app.js",
  "/static/audio.js",
  "/static/chat.js",
  "/static/clean.js",
  "/static/composer.js",
  "/static/connection.js",
  "/static/dom.js",
  "/static/i18n.js",
  "/static/inline.js",
  "/static/markdown.js",
  "/static/message.js",
  "/static/pair.js",
  "/static/panel.js",
  "/static/phone.js",
  "/static/recorder.js",
  "/static/requests.js",
  "/static/sessions.js",
  "/static/speech.js",
  "/static/store.js",
  "/static/talk.js",
  "/static/thread.js",
  "/static/turns.js",
  "/static/updates.js",
  "/static/watch.js",
];
const CACHE = `assistant-${VERSION}`;

self.addEventListener("install", (event) => {
  const fresh = SHELL.map((path) => new Request(path, { cache: "reload" }));
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(fresh); // all, or none: versions are never mixed
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      await Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("message", (event) => {
  if (event.data === "activate") self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  const path = url.pathname === "/pair" ? "/" : url.pathname;
  if (SHELL.includes(path)) event.respondWith(kept(path, request));
});

async function kept(path, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(path)) ?? fetch(request);
}
