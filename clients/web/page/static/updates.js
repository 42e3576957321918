// The service worker: keeps the page itself for when there is no network, and brings new versions.

import { wordButton } from "./message.js";
import { t } from "./i18n.js";

/** A version that came while the page was open the last time: nothing is lost by taking it now. */
async function activateWaiting() {
  const registration = await navigator.serviceWorker.getRegistration();
  registration?.waiting?.postMessage("activate");
}

/** Register it. `notice`: where a new version is told of. */
export async function followUpdates(notice) {
  if (!navigator.serviceWorker) return; // without https there is none, and no need of one
  let hadOne = navigator.serviceWorker.controller !== null;
  if (hadOne) activateWaiting();
  navigator.serviceWorker.addEventListener("controllerchange", () => {
    if (hadOne) location.reload(); // answers under way go on after it
    hadOne = true;
  });
  let registration;
  try {
    registration = await navigator.serviceWorker.register("/sw.js");
  } catch (error) {
    // a certificate that this device does not trust (yet): the page works, but only online
    console.warn("no service worker", error);
    return;
  }
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker.addEventListener("statechange", () => {
      if (worker.state !== "installed" || !navigator.serviceWorker.controller) return;
      const reload = wordButton("retry", t("reload"), () => worker.postMessage("activate"));
      notice.replaceChildren(t("updated"), reload);
    });
  });
  // an installed page may be open for weeks
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) registration.update().catch((error) => console.warn(error));
  });
}
