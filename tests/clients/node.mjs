// Tells the stories under Node and prints how they went, as JSON: node node.mjs MODULES PROJECT, node 22 or later.
import { createRequire } from "node:module";
import { stories } from "./stories/index.mjs";

const [modules, project] = process.argv.slice(2);
const { createClient } = createRequire(`${modules}/`)("@supabase/supabase-js");
console.log(JSON.stringify(await stories(createClient, JSON.parse(project))));
process.exit(0);
