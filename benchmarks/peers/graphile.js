/* Graphile Worker, as its page on performance has it.

- concurrentJobs 24, maxPoolSize 25, localQueue of 500, completeJobBatchDelay and failJobBatchDelay 0: the
  configuration of its published figures. --plain is its other one: neither local queue nor batches (the default).
- `latency` is plain: its documentation says that the local queue trades latency for throughput. --local-queue tries
  it with; the two were alike.
- `enqueue-many` times utils.addJobs in one call with specs made beforehand, and the SQL function it wraps, with rows
  made by the database itself.

Workers are processes of their own, which report over Node's pipe every 10 ms. Packages come from NODE_PATH. */

const { fork } = require("node:child_process");
const { setTimeout: sleep } = require("node:timers/promises");
const { parseArgs } = require("node:util");
const { makeWorkerUtils, run, Logger } = require("graphile-worker");
const { Pool } = require("pg");

const connectionString = process.env.BENCH_DSN;
const logger = new Logger(() => (level, message) => level === "error" && console.error(message));
const WARM_UP = 20; // jobs of `latency` that do not count
const BULK = 5000; // jobs that `held` keeps waiting, and enqueues at a time
const TABLE = "graphile_worker._private_jobs";
const BATCHES = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const now = () => performance.timeOrigin + performance.now(); // wall clock, finer than Date.now()

function work(plain) {
  let report = { count: 0, first: 0, waited: [] };
  let timer = null;
  const send = () => {
    process.send(report);
    report.waited = [];
    timer = null;
  };
  const noop = () => {
    if (!report.count++) report.first = Date.now();
    timer ??= setTimeout(send, 10);
  };
  const timed = ({ number, at }) => {
    report.waited.push([number, now() - at]);
    timer ??= setTimeout(send, 10);
  };
  const worker = { connectionString, concurrentJobs: 24, maxPoolSize: 25, ...(plain ? {} : BATCHES) };
  process.once("message", () => run({ logger, taskList: { noop, timed }, preset: { worker } }));
  process.send(report);
}

/* Worker processes, loaded and waiting for go(). */
async function workers(processes, plain) {
  const reports = [];
  const waited = new Map();
  const start = (_, slot) => {
    const child = fork(__filename, ["worker", plain ? "plain" : "batches"]);
    child.on("exit", () => process.exit(1)); // its count would be waited for in vain
    child.on("message", (report) => {
      reports[slot] = report;
      for (const [number, ms] of report.waited) waited.set(number, ms);
    });
    return child;
  };
  const children = Array.from({ length: processes }, start);
  while (Object.keys(reports).length < processes) await sleep(5);
  return {
    waited,
    go: () => children.forEach((child) => child.send("go")),
    total: () => reports.reduce((sum, report) => sum + report.count, 0),
    first: () => Math.min(...reports.filter((report) => report.count).map((report) => report.first)),
    stop: () => children.forEach((child) => child.removeAllListeners("exit").kill("SIGKILL")),
  };
}

const made = (count, filled) => {
  const payload = (i) => (filled ? { user_id: i, name: "abc" } : {});
  return Array.from({ length: count }, (_, i) => ({ identifier: "noop", payload: payload(i) }));
};

async function settle(pool) {
  await pool.query(`vacuum analyze ${TABLE}`);
  await pool.query("checkpoint");
}

async function drain({ jobs, pool, utils, processes, plain }) {
  const all = await workers(processes, plain);
  await utils.addJobs(made(jobs));
  await settle(pool);
  all.go();
  while (all.total() < jobs) await sleep(5);
  while ((await pool.query(`select count(*)::int as left from ${TABLE}`)).rows[0].left) await sleep(10);
  const ended = Date.now();
  all.stop();
  return { jobs_per_second: (jobs * 1000) / (ended - all.first()) };
}

async function enqueueMany({ jobs, pool, utils }) {
  const rate = async (enqueue) => {
    await pool.query(`truncate ${TABLE}`);
    await settle(pool);
    const began = performance.now();
    await enqueue();
    return (jobs * 1000) / (performance.now() - began);
  };
  const row = `row('noop', json_build_object('user_id', i, 'name', 'abc'), null, null, null, null, null, null)`;
  const specs = `select ${row}::graphile_worker.job_spec from generate_series(1, ${jobs}) i`;
  const given = made(jobs, true);
  await utils.addJobs(made(100, true)); // connections, the task's identifier
  return {
    jobs_per_second: await rate(() => utils.addJobs(given)),
    sql_jobs_per_second: await rate(() => pool.query(`select count(*) from graphile_worker.add_jobs(array(${specs}))`)),
  };
}

async function latency({ jobs, utils, plain }) {
  const all = await workers(1, plain);
  all.go();
  for (let number = 0; number < WARM_UP + jobs; number++) {
    if (number === WARM_UP) {
      while (all.waited.size < WARM_UP) await sleep(50);
      await sleep(1000); // the worker is idle again
    }
    await sleep(Math.random() * 20);
    await utils.addJob("timed", { number, at: now() });
  }
  while (all.waited.size < WARM_UP + jobs) await sleep(50);
  all.stop();
  return { latencies_ms: Array.from({ length: jobs }, (_, i) => +all.waited.get(WARM_UP + i).toFixed(3)) };
}

async function held({ jobs, pool, utils, plain, seconds }) {
  const all = await workers(1, plain);
  const bulk = made(BULK);
  await utils.addJobs(bulk); // the first one before the snapshot, so that the planner has seen a filled table
  await settle(pool);
  const holder = await pool.connect();
  await holder.query("begin isolation level repeatable read");
  await holder.query(`select count(*) from ${TABLE}`);
  const curve = [[0, 0]];
  const elapsed = () => (all.total() ? (Date.now() - all.first()) / 1000 : 0);
  all.go();
  for (let enqueued = BULK; all.total() < jobs && elapsed() < seconds; await sleep(5)) {
    if (enqueued - all.total() < BULK) {
      await utils.addJobs(bulk);
      enqueued += BULK;
    }
    if (elapsed() >= 0.5 * curve.length) curve.push([elapsed(), all.total()]);
  }
  if (curve.at(-1)[1] < all.total()) curve.push([elapsed(), all.total()]);
  all.stop();
  return { curve };
}

async function main() {
  const number = (given) => ({ type: "string", default: given });
  const flag = { type: "boolean" };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { processes: number("1"), seconds: number("60"), plain: flag, "local-queue": flag },
  });
  const [name, jobs] = positionals;
  const plain = values.plain || (name === "latency" && !values["local-queue"]);
  const act = { drain, "enqueue-many": enqueueMany, latency, held }[name];
  if (!act) throw new Error(`no such work: ${name}`);
  const pool = new Pool({ connectionString, max: 2 });
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  const [processes, seconds] = [+values.processes, +values.seconds];
  const result = await act({ jobs: +jobs, pool, utils, plain, processes, seconds });
  const batching = plain ? "no local queue, no batches" : "localQueue 500, complete and fail batches with delay 0";
  const settings = `concurrentJobs 24, maxPoolSize 25, ${batching}, processes ${processes}`;
  console.log(JSON.stringify({ ...result, version: require("graphile-worker/package.json").version, settings }));
  process.exit(0);
}

if (process.argv[2] === "worker") work(process.argv[3] === "plain");
else main(); // a rejection prints itself and exits 1
