// The live page: puts in what the server sends, keeps open what was open.
"use strict";
const place = document.getElementById("live");
const link = document.getElementById("link");
const source = new EventSource("events");

function name(details) {
  const section = details.closest("section");
  const stage = details.closest(".stage");
  const parts = [section && section.getAttribute("aria-labelledby"),
    stage && stage.querySelector("h3").textContent];
  const of = (stage || section || place).querySelectorAll("details");
  return parts.concat([...of].indexOf(details)).join("/");
}

source.onopen = () => { link.textContent = "live"; };
source.onerror = () => { link.textContent = "no connection; trying again"; };
source.onmessage = (event) => {
  const open = new Set([...place.querySelectorAll("details[open]")].map(name));
  const at = window.scrollY;
  place.innerHTML = event.data;
  for (const details of place.querySelectorAll("details")) {
    details.open = open.has(name(details));
  }
  window.scrollTo(0, at);
};
