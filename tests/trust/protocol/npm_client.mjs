// Several ConvexClients of npm's package in one process, each with its own subscriptions, driven
// over the standard streams. Arguments: the server's URL, where the package is installed, how many.
//
// Orders   mutate {tab, key} · act {tab} · watch {tab, name} · unwatch {tab} · state · quit
// Tells    ready; broken, when a mutation is done and its entry is not among the results; state
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [url, folder, count] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { ConvexClient } = require("convex/browser");
const { anyApi: api } = require("convex/server");

const tell = (event, details = {}) =>
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);

const tabs = Array.from({ length: Number(count) }, (_, number) => {
  const client = new ConvexClient(url, { logger: false });
  const tab = { client, watched: [], survey: null, tallies: null };
  tab.calls = { asked: 0, done: 0, refused: 0, acted: 0, lost: 0, asking: 0 };
  client.onUpdate(api.ledger.survey, { way: "by_key" }, (value) => {
    tab.survey = value;
    // One mutation writes both tables, so one instant has one sum.
    check(tab, number);
  });
  client.onUpdate(api.ledger.tallies, {}, (value) => {
    tab.tallies = value;
    check(tab, number);
  });
  return tab;
});

// Both subscriptions are told one after the other; looked at when both have been.
function check(tab, number) {
  if (tab.isChecking) return;
  tab.isChecking = true;
  queueMicrotask(() => {
    tab.isChecking = false;
    if (tab.survey === null || tab.tallies === null) return;
    const sum = Object.values(tab.tallies).reduce((a, b) => a + b, 0);
    if (sum !== tab.survey.length)
      tell("broken", { what: `tab ${number} sees ${tab.survey.length} entries, tallied ${sum}` });
  });
}

function mutate(tab, number, key) {
  tab.calls.asked += 1;
  tab.client.mutation(api.ledger.record, { key, writer: `tab${number}`, rank: number }).then(
    () => {
      tab.calls.done += 1;
      if (tab.survey !== null && !tab.survey.some((entry) => entry.startsWith(`${key}/`)))
        tell("broken", { what: `tab ${number} was told that ${key} is done and does not see it` });
    },
    (error) => {
      tab.calls.refused += 1;
      tell("broken", { what: `${key}: ${error.message}` });
    },
  );
}

function act(tab) {
  tab.calls.asking += 1;
  tab.client.action(api.people.wait, { seconds: 0.05 }).then(
    () => (tab.calls.acted += 1),
    () => (tab.calls.lost += 1),
  );
}

function watch(tab, name) {
  const seen = { name, value: null };
  seen.end = tab.client.onUpdate(api.counters.value, { name }, (value) => (seen.value = value));
  tab.watched.push(seen);
}

tell("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const tab = tabs[order.tab ?? 0];
  if (order.order === "mutate") mutate(tab, order.tab, order.key);
  else if (order.order === "act") act(tab);
  else if (order.order === "watch") watch(tab, order.name);
  else if (order.order === "unwatch") tab.watched.shift()?.end();
  else if (order.order === "state")
    tell("state", {
      tabs: tabs.map(({ survey, tallies, calls, watched }) => ({
        survey,
        tallies,
        calls,
        watched: watched.map(({ name, value }) => [name, value]),
      })),
    });
  else break;
}
for (const { client } of tabs) await client.close();
process.exit(0);
