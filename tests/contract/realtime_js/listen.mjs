// Listens for INSERTs with the official client and prints what it is told, one JSON object a line.
// Usage: node listen.mjs URL KEY TABLE COUNT, with the node_modules folder in PULSE_SUPABASE_JS; node 22 or later.
import { createRequire } from 'node:module'

const require = createRequire(process.env.PULSE_SUPABASE_JS + '/')
const { createClient } = require('@supabase/supabase-js')
const [url, key, table, count] = process.argv.slice(2)

const say = (what) => console.log(JSON.stringify(what))
const client = createClient(url, key)
let heard = 0

const channel = client
  .channel('jobs')
  .on('system', {}, (message) => say({ system: message }))
  .on('postgres_changes', { event: 'INSERT', schema: 'public', table }, async (change) => {
    say({ change })
    heard += 1
    if (heard === Number(count)) {
      say({ left: await client.removeChannel(channel) })
      process.exit(0)
    }
  })
  .subscribe((status, error) => say({ status, error: error ? String(error) : null }))
