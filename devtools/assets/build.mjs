// Builds static/vendor/ and templates/partials/icons/ from the packages locked in package-lock.json.
// The output is committed, so that running the portal needs no Node. Deterministic: same lock, same bytes.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { compile } from "sass";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const modules = join(here, "node_modules");
const vendor = join(root, "static", "vendor");
const icons = join(root, "templates", "partials", "icons");
const fixtures = join(root, "tests", "web", "govuk_frontend_fixtures");

const versionOf = (name) => JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8")).version;
const homeOf = (folder, name) => {
  const home = join(vendor, `${folder}-${versionOf(name)}`);
  mkdirSync(home, { recursive: true });
  return home;
};

function refuseDataUris(css) {
  if (/url\(/i.test(css)) throw new Error("compiled CSS refers to a URL, which the portal's CSP does not serve");
  return css;
}

async function buildGovukFrontend() {
  const home = homeOf("govuk-frontend", "govuk-frontend");
  const { css } = compile(join(here, "govuk-frontend.scss"), { loadPaths: [modules], style: "compressed" });
  writeFileSync(join(home, "govuk-frontend.css"), refuseDataUris(css) + "\n");
  await build({
    entryPoints: [join(here, "govuk-frontend.js")],
    outfile: join(home, "govuk-frontend.js"),
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2020",
    legalComments: "none",
  });
  cpSync(join(here, "licenses", "govuk-frontend.txt"), join(home, "LICENSE")); // absent from the package
}

function copyHtmx() {
  const home = homeOf("htmx", "htmx.org");
  cpSync(join(modules, "htmx.org", "dist", "htmx.min.js"), join(home, "htmx.js"));
  cpSync(join(modules, "htmx.org", "LICENSE"), join(home, "LICENSE"));
}

function copyIcons() {
  const names = readFileSync(join(here, "icons.txt"), "utf8").split("\n").filter(Boolean);
  rmSync(icons, { recursive: true, force: true });
  mkdirSync(icons, { recursive: true });
  for (const name of names) {
    const svg = readFileSync(join(modules, "lucide-static", "icons", `${name}.svg`), "utf8");
    const paths = svg.replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>\s*$/, "");
    writeFileSync(join(icons, `${name}.svg`), paths.split("\n").map((line) => line.trim()).filter(Boolean).join("") + "\n");
  }
  cpSync(join(modules, "lucide-static", "LICENSE"), join(icons, "LICENSE"));
}

// The components' own examples, against which tests hold the Jinja port.
function copyFixtures() {
  const names = readFileSync(join(here, "components.txt"), "utf8").split("\n").filter(Boolean);
  rmSync(fixtures, { recursive: true, force: true });
  mkdirSync(fixtures, { recursive: true });
  for (const name of names) {
    const source = join(modules, "govuk-frontend", "dist", "govuk", "components", name, "fixtures.json");
    const all = JSON.parse(readFileSync(source, "utf8")).fixtures;
    const kept = all.map(({ name: title, options, html }) => ({ name: title, options, html }));
    writeFileSync(join(fixtures, `${name}.json`), JSON.stringify(kept, null, 1) + "\n");
  }
}

function writeManifest() {
  const sums = {};
  for (const entry of readdirSync(vendor, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    sums[relative(vendor, path)] = "sha512-" + createHash("sha512").update(readFileSync(path)).digest("base64");
  }
  const sorted = Object.fromEntries(Object.entries(sums).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(join(vendor, "manifest.json"), JSON.stringify(sorted, null, 2) + "\n");
}

rmSync(vendor, { recursive: true, force: true });
await buildGovukFrontend();
copyHtmx();
copyIcons();
copyFixtures();
writeManifest();
