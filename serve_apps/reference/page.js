// Shows openapi.json with Swagger UI, and again with what a key may do once there is one.
"use strict";

const KEPT = "clustergraph-key";
const said = document.getElementById("said");
const field = document.getElementById("key");

async function load(key) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const answer = await fetch("openapi.json", { headers });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.message ?? `The gateway answered ${answer.status}.`);
  return told;
}

function show(spec, key) {
  const ui = SwaggerUIBundle({
    spec,
    domNode: document.getElementById("reference"),
    deepLinking: true,
    docExpansion: "list",
    filter: true,
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    defaultModelExpandDepth: 2,
    defaultModelRendering: "model",
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis],
    onComplete: () => key && ui.preauthorizeApiKey("key", key),
  });
}

async function use(key) {
  try {
    show(await load(key), key);
    if (key) {
      sessionStorage.setItem(KEPT, key);
      said.textContent = "In use until you close this tab.";
    }
    said.className = "";
  } catch (error) {
    sessionStorage.removeItem(KEPT);
    said.textContent = error.message;
    said.className = "wrong";
  }
}

document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
document.getElementById("with-key").addEventListener("submit", (event) => {
  event.preventDefault();
  use(field.value.trim());
});
field.value = sessionStorage.getItem(KEPT) ?? "";
use("").then(() => field.value && use(field.value));
