// What JavaScript adds to pages that work without it: copying, local and relative times, countdowns.
// Elements that only make sense with it are marked `hidden` and `data-with-script` in the HTML.

for (const element of document.querySelectorAll("[data-with-script]")) element.hidden = false;

// Copy: a [data-copy] button copies the [data-copy-source] that shares its [data-copyable].

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const source = button.closest("[data-copyable]").querySelector("[data-copy-source]");
  const word = button.querySelector("[data-copy-word]");
  const before = word.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    word.textContent = "Copied";
    button.classList.add("copy--done");
  } catch {
    getSelection().selectAllChildren(source);
    word.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => {
    word.textContent = before;
    button.classList.remove("copy--done");
  }, 2500);
});

// Times: the server writes UTC and a relative phrase as of its own clock. The offset between the two clocks is
// taken once from the page, so that a wrong clock on this machine does not bend what is shown.

const serverNow = Date.parse(document.documentElement.dataset.now ?? "");
const offset = Number.isNaN(serverNow) ? 0 : serverNow - Date.now();
const now = () => Date.now() + offset;

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const UNITS = [
  ["day", 86400, 2 * 86400],
  ["hour", 3600, 2 * 3600],
  ["minute", 60, 60],
  ["second", 1, 0],
];

function phrase(seconds) {
  const size = Math.abs(seconds);
  if (size < 5) return "now";
  const [unit, length] = UNITS.find(([, , from]) => size >= from);
  return relative.format(Math.trunc(seconds / length), unit);
}

function countdown(seconds) {
  const left = Math.max(0, Math.floor(seconds));
  const part = (value) => String(value).padStart(2, "0");
  const days = Math.floor(left / 86400);
  const clock = `${part(Math.floor(left / 3600) % 24)}:${part(Math.floor(left / 60) % 60)}:${part(left % 60)}`;
  return days > 0 ? `${days} d ${clock}` : clock;
}

function showLocalTimes(scope) {
  for (const time of scope.querySelectorAll("time[data-local]")) {
    time.title = `${local.format(new Date(time.dateTime))} (${zone})`;
    const beside = time.parentElement.querySelector("[data-local-time]");
    if (beside && zone !== "UTC") {
      beside.textContent = `${local.format(new Date(time.dateTime))} your time`;
      beside.hidden = false;
    }
  }
}

function tick() {
  for (const element of document.querySelectorAll("[data-relative]")) {
    const text = phrase((Date.parse(element.dataset.relative) - now()) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("[data-countdown]")) {
    element.textContent = countdown((Date.parse(element.dataset.countdown) - now()) / 1000);
  }
}

showLocalTimes(document);
tick();
setInterval(tick, 1000);
document.addEventListener("htmx:afterSwap", (event) => {
  showLocalTimes(event.target.parentElement ?? document);
  for (const element of document.querySelectorAll("[data-with-script]")) element.hidden = false;
});

// A form that acts is sent once, however often its button is pressed within two seconds.

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, 2000);
});
