// Bundles the pages' TypeScript and CSS into adapter/web/static, with content hashes in the names so that /static may be
// cached for ever, and writes manifest.json {"timeline.js": "timeline-3KQ5ZJ2A.js", ...} for the templates' asset().
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "static");
const entriesIn = (folder, ending) =>
  readdirSync(join(here, folder))
    .filter((name) => name.endsWith(ending))
    .map((name) => join(here, folder, name));

const emptyStatic = () => {
  mkdirSync(out, { recursive: true });
  for (const name of readdirSync(out)) if (name !== ".gitignore") rmSync(join(out, name), { recursive: true });
};

const manifestOf = (metafile) => {
  const named = {};
  for (const [path, output] of Object.entries(metafile.outputs)) {
    if (!output.entryPoint) continue;
    const plain = basename(output.entryPoint).replace(/\.ts$/, ".js");
    named[plain] = relative(out, join(process.cwd(), path)).replaceAll("\\", "/");
  }
  return named;
};

const writeManifest = {
  name: "manifest",
  setup(build) {
    build.onEnd((result) => {
      if (result.metafile) {
        writeFileSync(join(out, "manifest.json"), JSON.stringify(manifestOf(result.metafile), null, 1) + "\n");
      }
    });
  },
};

const options = {
  entryPoints: [...entriesIn("pages", ".ts"), ...entriesIn("styles", ".css"), ...entriesIn("images", ".svg")],
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "chunk-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["es2022", "chrome109", "firefox115", "safari16"],
  minify: true,
  sourcemap: false,
  legalComments: "linked",
  metafile: true,
  loader: { ".svg": "copy" },
  plugins: [writeManifest],
  logLevel: "warning",
};

emptyStatic();
if (process.argv.includes("--watch")) {
  await (await esbuild.context(options)).watch();
} else {
  await esbuild.build(options);
}
