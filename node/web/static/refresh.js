// Keeps the page fresh: fetches it again and replaces what is marked `data-live`. Without this script the page
// works the same and a <noscript> refresh does it.
"use strict";
(() => {
  const sign = document.getElementById("fresh");
  if (!document.querySelector("[data-live]")) return;
  const period = 5000;
  let lastGood = new Date();
  let busy = false;

  const opened = (root) => [...root.querySelectorAll("details[open][id]")].map((d) => d.id);

  // Never pull a page from under somebody who selects text or walks through it with the keyboard.
  const inUse = () => {
    const active = document.activeElement;
    const walking = active && active.closest("[data-live]") && active.matches(":focus-visible");
    return document.hidden || String(window.getSelection()) !== "" || walking;
  };

  async function refresh() {
    if (busy || inUse()) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const text = await answer.text();
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(text, "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const next = fresh.getElementById(old.id);
        if (!next || next.innerHTML === old.innerHTML) continue;
        for (const id of opened(old)) next.querySelector("#" + CSS.escape(id))?.setAttribute("open", "");
        old.replaceChildren(...next.childNodes);
      }
      lastGood = new Date();
      sign.classList.remove("stale");
      sign.textContent = "live";
      sign.title = "last refreshed " + lastGood.toLocaleTimeString();
    } catch {
      sign.classList.add("stale");
      sign.textContent = "no answer since " + lastGood.toLocaleTimeString() + ": what you see may be old";
    } finally {
      busy = false;
    }
  }

  sign.textContent = "live";
  setInterval(refresh, period);
  document.addEventListener("visibilitychange", refresh);
})();
