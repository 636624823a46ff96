"use strict";
// Shows the events of /events, and acts through /actions. Everything from outside becomes text, never markup.

const by = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// ---- elements -----------------------------------------------------------------------------------------------------

/** An element with attributes, and children that are elements or text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function say(node, text) {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
}

/** Makes `parent` have one child for each item, and keeps those that are there: focus and selection stay. */
function list(parent, items, key, make, update) {
  const known = parent.known ??= new Map();
  const seen = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const name = key(item);
    if (seen.has(name)) continue;
    seen.add(name);
    let child = known.get(name);
    if (!child) known.set(name, child = make(item));
    update(child, item);
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
  for (const [name, child] of known) {
    if (!seen.has(name)) { child.remove(); known.delete(name); }
  }
}

/** Rows of a table: a cell is `[text, class]`, text, or a function that fills it; the first is the row's header. */
function rows(id, items, key, cells, acts) {
  list(by(id), items, key, (item) => {
    const row = element("tr");
    const made = cells(item).map((_, at) => element(at ? "td" : "th", at ? {} : { scope: "row" }));
    row.append(...made);
    if (acts) row.append(element("td", { class: "acts number" }, ...acts(item)));
    return row;
  }, (row, item) => {
    cells(item).forEach((cell, at) => {
      if (typeof cell === "function") return cell(row.children[at]);
      const [text, kind = ""] = Array.isArray(cell) ? cell : [cell];
      const node = row.children[at];
      say(node, text);
      if (node.className !== kind) node.className = kind;
    });
  });
  const none = by("no-" + id);
  if (none) none.hidden = items.length > 0;
}

// ---- words ----------------------------------------------------------------------------------------------------------

const clock = (ms) => new Date(ms).toISOString().slice(11, 19);
const whole = (n) => Number(n).toLocaleString("en", { maximumFractionDigits: 0 });
const number = (n) => [whole(n), n ? "number" : "number zero"];
const rate = (n) => n < 10 ? Number(n).toFixed(1).replace(/\.0$/, "") : whole(n);

function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 0.001) return "< 1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const LEVELS = { ok: ["✓", "All well"], warning: ["!", "Warning"], bad: ["✕", "Trouble"] };

const CODES = {
  "08006": "connection lost", "08P01": "protocol violation", "22012": "division by zero", "23502": "not null violation",
  "23503": "foreign key violation", "23505": "unique violation", "25006": "read-only transaction", "25P02": "failed transaction",
  "25P03": "idle in transaction for too long", "25P04": "transaction took too long", "28000": "login refused",
  "28P01": "wrong password", "3D000": "no such database", "40001": "serialization failure", "40P01": "deadlock",
  "42501": "permission denied", "42601": "syntax error", "42703": "no such column", "42P01": "no such table",
  "53200": "out of memory", "53300": "limit reached: refused, or waited too long", "54000": "too large", "55P03": "lock_timeout",
  "57014": "canceled, or statement_timeout", "57P01": "ended by an administrator", "57P02": "server crashed",
  "57P03": "server does not answer", "XX000": "internal error",
};

// ---- state ----------------------------------------------------------------------------------------------------

let status = null;
/** The chart of each role, by name: lists that end at the second `drawn`. */
let lines = new Map();
let drawn = 0, kept = 600, states = [];
/** Seconds that are drawn: not more than the process is old. */
let span = 600;
/** Earlier counters, for rates of now. */
let counted = [];

function takeLines(told) {
  ({ seconds: kept, states, second: drawn } = told);
  lines = new Map(Object.entries(told.roles));
}

/** Appends this second to what is drawn. */
function draw() {
  const passed = status.uptime - drawn;
  span = Math.min(kept, Math.max(120, status.uptime));
  const now = new Map(status.roles.map((role) => [role.role, role]));
  for (const name of now.keys()) {
    if (!lines.has(name)) lines.set(name, { active: [], waiting: [], limit: [], effective: [], state: [] });
  }
  for (const [name, line] of lines) {
    const role = now.get(name);
    const point = { ...role, state: role && states.indexOf(role.state) };
    for (const [what, values] of Object.entries(line)) {
      if (passed > 1 && values.length) values.push(...new Array(Math.min(passed - 1, kept)).fill(null));
      if (passed < 1) values.pop();
      values.push(role ? point[what] : null);
      values.splice(0, values.length - kept);
    }
    if (!line.active.some((value) => value !== null)) lines.delete(name);
  }
  drawn = status.uptime;
}

// ---- charts -------------------------------------------------------------------------------------------------------------

const shape = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** Runs of values that are there, as [x, value] with x in seconds from the left edge. */
function runs(values) {
  const found = [], start = span - values.length;
  let run = null;
  values.forEach((value, at) => {
    if (value === null || value === undefined) { run = null; return; }
    if (!run) found.push(run = []);
    run.push([start + at, value]);
  });
  return found;
}

/** A line in steps, as a path in a box of `span` by 100; `isArea` goes down to the ground at both ends. */
function path(values, most, isArea) {
  const y = (value) => (100 - value / most * 96).toFixed(1);
  let d = "";
  for (const run of runs(values)) {
    d += `M${run[0][0]} ${isArea ? 100 : y(run[0][1])}`;
    let last = null;
    for (const [x, value] of run) {
      if (value !== last) d += (last === null ? "" : `H${x}`) + `V${y(value)}`;
      last = value;
    }
    d += `H${run[run.length - 1][0] + 1}` + (isArea ? "V100Z" : "");
  }
  return d;
}

/** The seconds of a role in this state, as rectangles. */
function bands(values, index) {
  let d = "";
  for (const run of runs(values.map((value) => value === index ? 1 : null))) {
    d += `M${run[0][0]} 0H${run[run.length - 1][0] + 1}V100H${run[0][0]}Z`;
  }
  return d;
}

function makePlot() {
  const box = { preserveAspectRatio: "none", "aria-hidden": "true" };
  const plot = { parts: {} };
  const part = (name, kind = "path") => plot.parts[name] = shape(kind, { class: name.replace(/\d/, "") });
  const svg = (kind, ...parts) => { const made = shape("svg", { ...box, class: kind }); made.append(...parts); return made; };
  const cross = (name) => { const made = part(name, "line"); made.setAttribute("y2", "100"); made.setAttribute("visibility", "hidden"); return made; };
  const chart = svg("chart", part("burst"), part("stuck"), part("closed"), part("active"), part("limit"), part("effective"), cross("cross"));
  const queue = svg("queue", part("burst2"), part("stuck2"), part("closed2"), part("waiting"), cross("cross2"));
  plot.most = element("span", { class: "most" });
  plot.mostWaiting = element("span", { class: "most second" });
  plot.axis = [element("span"), element("span"), element("span")];
  plot.readout = element("p", { class: "readout" });
  const area = element("div", { class: "plot", role: "img" }, chart, queue, plot.most, plot.mostWaiting);
  Object.assign(plot, { area, boxes: [chart, queue] });
  area.addEventListener("pointermove", (event) => {
    const { left, width } = chart.getBoundingClientRect();
    plot.pointed = Math.min(span - 1, Math.max(0, Math.floor((event.clientX - left) / width * span)));
    point(plot);
  });
  area.addEventListener("pointerleave", () => { plot.pointed = undefined; point(plot); });
  plot.node = element("div", {}, area, element("div", { class: "axis", "aria-hidden": "true" }, ...plot.axis), plot.readout);
  return plot;
}

function drawPlot(plot, line) {
  plot.line = line;
  for (const box of plot.boxes) box.setAttribute("viewBox", `0 0 ${span} 100`);
  const top = (values) => values.reduce((most, value) => Math.max(most, value ?? 0), 0);
  const most = Math.max(1, top(line.active), top(line.effective), top(line.limit));
  const mostWaiting = Math.max(1, top(line.waiting));
  const { parts } = plot;
  const set = (name, d) => { if (parts[name].getAttribute("d") !== d) parts[name].setAttribute("d", d); };
  set("active", path(line.active, most, true));
  set("effective", path(line.effective, most, false));
  set("limit", path(line.limit, most, false));
  set("waiting", path(line.waiting, mostWaiting, true));
  for (const state of ["burst", "stuck", "closed"]) {
    const d = bands(line.state, states.indexOf(state));
    set(state, d);
    set(state + "2", d);
  }
  say(plot.most, whole(most));
  say(plot.mostWaiting, whole(mostWaiting));
  [span, span / 2, 0].forEach((ago, at) => say(plot.axis[at], clock(status.now - ago * 1000)));
  plot.summary = `In the last ${time(span)} up to ${whole(top(line.active))} active, up to ${whole(top(line.waiting))} waiting.`;
  plot.area.setAttribute("aria-label", plot.summary);
  point(plot);
}

/** Shows the numbers of the second under the pointer. */
function point(plot) {
  const { line, parts, pointed } = plot;
  const isThere = pointed !== undefined;
  for (const name of ["cross", "cross2"]) {
    parts[name].setAttribute("visibility", isThere ? "visible" : "hidden");
    if (isThere) { parts[name].setAttribute("x1", pointed + 0.5); parts[name].setAttribute("x2", pointed + 0.5); }
  }
  if (!isThere) { say(plot.readout, plot.summary); return; }
  const at = pointed - (span - line.active.length);
  const when = clock(status.now - (span - 1 - pointed) * 1000);
  if (at < 0 || line.active[at] === null) { say(plot.readout, `${when}: no data`); return; }
  const limit = line.effective[at] ?? line.limit[at];
  const of = limit === null || limit === undefined ? "" : ` of ${whole(limit)}`;
  say(plot.readout, `${when}: ${whole(line.active[at])}${of} active, ${whole(line.waiting[at])} waiting, ${states[line.state[at]]}`);
}

// ---- the page --------------------------------------------------------------------------------------------------------------

function show() {
  const { headline, clients } = status;
  say(by("about"), `${status.version} · up ${time(status.uptime)}${status.draining ? " · shutting down" : ""} · ${clock(status.now)} UTC`);
  const [sign, word] = LEVELS[headline.level];
  const box = by("headline");
  box.hidden = false;
  if (box.className !== headline.level) say(by("spoken"), `${word}: ${headline.text}`);
  box.className = headline.level;
  say(box.querySelector(".sign"), sign);
  say(box.querySelector(".word"), word);
  say(box.querySelector("strong"), headline.text);
  document.title = (headline.level === "ok" ? "pgweir" : `${sign} ${headline.text} – pgweir`);
  // The headline says the first already.
  const others = headline.level === "ok" ? status.problems : status.problems.slice(1);
  list(by("problems"), others.map((problem, at) => ({ ...problem, at })), (problem) => problem.at,
    () => element("li", {}, element("span"), element("span")),
    (item, problem) => told(item, problem));

  const now = rates();
  const oldest = Math.max(0, ...status.roles.map((role) => role.oldest_wait), ...status.pools.map((pool) => pool.oldest_wait));
  const sum = (of) => status.pools.reduce((sum, pool) => sum + of(pool), 0);
  const errors = status.errors.reduce((sum, error) => sum + error.last_minute, 0);
  tiles([
    ["Waiting", whole(clients.waiting), clients.waiting ? `the first for ${time(oldest)}` : "no client waits"],
    ["Transactions per second", now ? rate(now.transactions) : "–", now ? `${rate(now.queries)} queries per second` : ""],
    ["Backends active", whole(sum((pool) => pool.active)), `${whole(sum((pool) => pool.idle))} idle, ${whole(sum((pool) => pool.opening))} opening`],
    ["Clients", whole(clients.idle + clients.waiting + clients.active), `${whole(clients.connections)} of ${whole(clients.max)} connections`],
    ["Errors in the last minute", whole(errors), errors ? `most: ${status.errors[0].sqlstate}` : "none"],
  ]);
  showRoles();
  rows("pools", status.pools, (pool) => JSON.stringify([pool.database, pool.role]), (pool) => [
    pool.database, pool.role, number(pool.active), number(pool.idle), number(pool.size),
    [whole(pool.waiting), pool.waiting ? "number loud" : "number zero"],
    [time(pool.oldest_wait), pool.oldest_wait >= 1 ? "number loud" : "number zero"],
    [time(pool.wait_p50), "number" + (pool.wait_p50 ? "" : " zero")], [time(pool.wait_p99), "number" + (pool.wait_p99 ? "" : " zero")],
    [rate(pool.transactions_per_second), "number"], number(pool.clients), number(pool.opening), number(pool.closing), pool.mode,
  ]);
  by("pools-left-out").hidden = !status.pools_left_out;
  say(by("pools-left-out"), `${status.pools_left_out} pools with less to do are left out; SHOW POOLS has them.`);
  by("orders-section").hidden = status.orders.length === 0;
  rows("orders", status.orders, (of) => JSON.stringify([of.target, of.digest, of.order]), (of) => [
    of.target ?? `statement ${of.digest}`, of.order, of.by ?? "not known", of.addr ?? "",
    [time(of.since_seconds), "number"], [of.left_seconds === null ? "until another" : time(of.left_seconds), "number"],
  ], (of) => of.digest ? [element("button", { onclick: () => ask(unblockAction(of)) }, "Take back")] : []);
  showStatements();
  showFleet();
  showDatabases();
  rows("errors", status.errors, (error) => error.sqlstate, (error) => [
    error.sqlstate + (CODES[error.sqlstate] ? ` ${CODES[error.sqlstate]}` : ""),
    [whole(error.last_minute), error.last_minute ? "number loud" : "number zero"], number(error.total),
  ]);
  rows("pins", status.pins, (pin) => JSON.stringify([pin.reason, pin.database, pin.role]), (pin) => [
    pin.reason.replaceAll("_", " "), pin.database, pin.role, number(pin.clients),
  ]);
  rows("listeners", status.listeners, (of) => of.database, (of) => [
    of.database, number(of.listeners), number(of.channels), number(of.delivered),
    [whole(of.queue), of.queue ? "number" : "number zero"],
  ]);
  list(by("lately"), status.lately.map((entry) => ({ ...entry, began: status.now - entry.began * 1000 })),
    (entry) => `${Math.round(entry.began / 3000)} ${entry.what.replace(/\d+/g, "")}`,
    () => element("li", {}, element("span", { class: "when" }), element("span"), element("span")),
    (item, entry) => {
      say(item.children[0], clock(entry.began) + (entry.ended === null ? " until now" : ` to ${clock(status.now - entry.ended * 1000)}`));
      level(item.children[1], entry.level);
      say(item.children[2], entry.what);
    });
  by("no-lately").hidden = status.lately.length > 0;
  by("act").hidden = !status.may_act;
  if (!status.may_act) forget();
}

function level(node, word) {
  if (node.className !== `level ${word}`) node.className = `level ${word}`;
  say(node, word === "bad" ? "trouble" : word);
}

function told(item, problem) {
  level(item.children[0], problem.level);
  say(item.children[1], problem.what);
}

/** Counters of about three seconds ago make rates of now. */
function rates() {
  const now = { at: status.uptime, transactions: status.transactions, queries: status.queries };
  if (counted.length && counted[counted.length - 1].at >= now.at) counted = [];
  counted.push(now);
  counted.splice(0, counted.length - 4);
  const passed = now.at - counted[0].at;
  const per = (what) => Math.max(0, now[what] - counted[0][what]) / passed;
  return passed > 0 ? { transactions: per("transactions"), queries: per("queries") } : null;
}

function tiles(all) {
  list(by("tiles"), all, ([name]) => name, ([name]) =>
    element("div", {}, element("dt", {}, name), element("dd"), element("dd", { class: "more" })),
  (tile, [, value, more]) => { say(tile.children[1], value); say(tile.children[2], more); });
}

function showRoles() {
  const calm = (role) => role.state === "calm" && role.oldest_wait < 1;
  const order = [...status.roles].sort((a, b) => calm(a) - calm(b) || (a.role < b.role ? -1 : 1));
  list(by("roles"), order, (role) => role.role, (role) => {
    const state = element("span", { class: "state" });
    const numbers = element("p", { class: "numbers" });
    const plot = makePlot();
    const button = (text, what) => element("button", { onclick: () => ask(what(status.roles.find((now) => now.role === role.role) ?? role)) }, text);
    const acts = element("span", { class: "acts" }, button("Limit", limitAction), button("Ramp", rampAction));
    const card = element("article", { class: "role", "aria-label": `role ${role.role}` },
      element("h3", {}, element("span", { class: "name" }, role.role), state, acts), numbers, plot.node);
    Object.assign(card, { state, numbers, plot });
    return card;
  }, (card, role) => {
    card.state.className = `state ${role.state}`;
    say(card.state, role.state);
    const strong = (text) => element("b", {}, text);
    const parts = [strong(whole(role.active)), " active"];
    if (role.limit !== null) parts.push(" of ", strong(whole(role.limit)));
    if (role.effective !== null && role.effective !== role.limit) parts.push(", of ", strong(whole(role.effective)), " now");
    if (role.moves_for !== null) parts.push(` (ramp: ${time(role.moves_for)} more)`);
    parts.push("; ", strong(whole(role.waiting)), " waiting");
    if (role.waiting) parts.push(", the first for ", strong(time(role.oldest_wait)));
    parts.push(`; ${rate(role.starts_per_second)} per second`);
    if (role.turned_away) parts.push("; ", strong(whole(role.turned_away)), " refused or timed out in the last minute");
    card.numbers.replaceChildren(...parts);
    const line = lines.get(role.role);
    if (line) drawPlot(card.plot, line);
    card.plot.node.hidden = !line;
  });
  by("no-roles").hidden = status.roles.length > 0;
}

function showStatements() {
  const busiest = status.statements ?? [];
  by("statements-section").hidden = status.statements === null;
  const most = Math.max(0.01, ...busiest.flatMap((row) => row.trend));
  const order = (row) => status.orders.find((of) => of.digest === row.digest);
  rows("statements", busiest, (row) => row.digest, (row) => [
    row.digest, (cell) => drawTrend(cell, row.trend, most),
    [rate(row.busy), row.busy >= 0.05 ? "number" : "number zero"], [whole(row.running), row.running ? "number" : "number zero"],
    [rate(row.calls_per_second), "number"], [time(row.server_time), "number"],
    [time(row.wait_time), row.wait_time ? "number" : "number zero"],
    [whole(row.timeouts), row.timeouts ? "number loud" : "number zero"],
    row.roles.join(", ") + (row.application_name ? ` (${row.application_name})` : ""),
    [[order(row)?.order, row.trouble].filter(Boolean).join("; "), row.trouble ? "loud" : ""],
    (cell) => { cell.className = "text"; say(cell, row.statement); cell.title = row.statement; },
  ], ({ digest }) => {
    const button = (text, action) => element("button", { onclick: () => {
      const row = status.statements.find((now) => now.digest === digest);
      ask(action({ digest, statement: row?.statement }));
    } }, text);
    return [button("Limit", limitStatementAction), button("Block", blockAction), button("Cancel", cancelAction)];
  });
}

/** Ten minutes as an area, in a scale that all statements share. */
function drawTrend(cell, values, most) {
  const [wide, high] = [120, 22];
  let area = cell.firstChild?.firstChild;
  if (!area) {
    area = shape("path", { class: "active" });
    const box = shape("svg", { class: "trend", viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", role: "img" });
    box.append(area);
    cell.append(box);
  }
  const y = (value) => (high - value / most * (high - 1)).toFixed(1);
  const start = wide - values.length;
  const d = values.length ? `M${start} ${high}` + values.map((value, at) => `V${y(value)}H${start + at + 1}`).join("") + `V${high}Z` : "";
  if (area.getAttribute("d") !== d) area.setAttribute("d", d);
  cell.firstChild.setAttribute("aria-label", `Up to ${rate(Math.max(0, ...values))} backends in the last ten minutes`);
}

function showFleet() {
  const members = status.fleet ?? [];
  by("fleet-section").hidden = members.length === 0;
  const sum = (name) => members.reduce((total, of) => total + of[name], 0);
  const all = { instance: "all", addr: `${whole(members.length)} together`, clients: sum("clients"), active: sum("active"), waiting: sum("waiting") };
  rows("fleet", members.length > 1 ? [...members, all] : members, (of) => of.instance, (of) => [
    of.addr + (of.self ? ", this one" : ""), of.version ?? "", [of.state ?? "", ["granted", undefined].includes(of.state) ? "" : "loud"],
    number(of.clients), number(of.active), [whole(of.waiting), of.waiting ? "number loud" : "number zero"], of.shares ?? "",
    [of.last_seen_ms == null ? "" : time(of.last_seen_ms / 1000), "number"], [of.notes ?? "", "loud"],
  ]);
}

function showDatabases() {
  const watched = new Map((status.watch?.convoys ?? []).map((row) => [row.database, row]));
  rows("databases", status.databases, (of) => of.database, (of) => {
    const server = of.state === "down" ? `down for ${time(of.down_for)}` : of.state === "full" ? "takes no more connections" : "up";
    const convoy = watched.get(of.database);
    return [
      of.database, [server + (of.paused ? ", paused" : "") + (of.disabled ? ", disabled" : ""), of.state === "up" ? "" : "loud"],
      convoy ? [convoy.state, ["convoy", "blind"].includes(convoy.state) ? "loud" : ""] : ["not watched", "zero"],
      number(of.backends), [of.backends_max ?? "–", "number"], [whole(of.waiting), of.waiting ? "number loud" : "number zero"],
    ];
  }, ({ database }) => ["PAUSE", "RESUME", "RECONNECT"].map((verb) =>
    element("button", { onclick: () => ask(databaseAction(verb, database)) }, verb[0] + verb.slice(1).toLowerCase())));

  const culprit = (kind, row, what) => ({ ...row, kind, what, key: JSON.stringify([kind, row.database, row.culprit, row.kind]) });
  const found = status.watch ? [
    ...status.watch.convoys.filter((row) => row.state === "convoy").map((row) => culprit("convoy", row,
      `${whole(row.waiters)} sessions wait for locks${row.lock ? `, most for ${row.lock}` : ""}, the first for ${time(row.maxwait)}`)),
    ...status.watch.blockers.map((row) => culprit(row.kind, row, row.what)),
    ...status.watch.horizon.filter((row) => row.since).map((row) => culprit("horizon", row, row.what)),
  ] : [];
  list(by("found"), found, (row) => row.key, (row) => {
    const end = element("button", { class: "danger", onclick: () => ask(killAction(row)) }, "End its client");
    const limit = element("button", { onclick: () => ask(limitStatementAction(row)) }, "Limit its statement");
    return element("li", {}, element("p", {}, element("b"), element("span")), element("p", { class: "who" }),
      element("p", {}, "Ends it: ", element("code")), element("p", { class: "acts" }, limit, end));
  }, (item, row) => {
    item.className = row.kind === "convoy" ? "bad" : "";
    const [what, who, remedy, act] = item.children;
    say(what.children[0], `${row.database}: ${row.kind.replaceAll("_", " ")}${row.since ? `, since ${row.since}` : ""}. `);
    say(what.children[1], row.what);
    say(who, row.culprit ? `By ${row.culprit}.` : "");
    remedy.hidden = !row.remedy;
    say(remedy.children[0], row.remedy ?? "");
    act.hidden = !row.client;
    act.children[0].hidden = !row.digest;
  });
}

// ---- actions ------------------------------------------------------------------------------------------------------------------

/** In memory only. */
let token = null;

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

function limitAction(role) {
  return {
    title: `Limit role ${role.role}`, limit: role.limit ?? "", over: true,
    what: "This is the limit of the transactions of this role that run at once, over all databases, until a RELOAD with another limit or a restart. "
      + "Those above it finish; the others wait. 0 closes the role. Empty: the limit of the configuration again.",
    command: (limit, over) => `LIMIT ${quoted(role.role)} ${limit === "" ? "DEFAULT" : limit}${limit !== "" && over ? ` OVER '${over}'` : ""}`,
  };
}

function rampAction(role) {
  return {
    title: `Ramp role ${role.role}`, over: true,
    what: "Its limit begins again at admission.initial and grows to where it is within this time. Transactions that run finish.",
    command: (_, over) => `RAMP ${quoted(role.role)}${over ? ` OVER '${over}'` : ""}`,
  };
}

function limitStatementAction(row) {
  return {
    title: `Limit statement ${row.digest}`, limit: 1, lasts: true,
    what: `So many transactions at once may begin with it; the others wait, and nobody else behind them. ${row.statement ?? ""}`,
    command: (limit, _, lasts) => `LIMIT STATEMENT ${row.digest} ${limit} FOR '${lasts}'`,
  };
}

function blockAction(row) {
  return {
    title: `Block statement ${row.digest}`, lasts: true, what: `It is refused with SQLSTATE 53400, wherever it stands in a transaction. ${row.statement ?? ""}`,
    command: (_, __, lasts) => `BLOCK STATEMENT ${row.digest} FOR '${lasts}'`,
  };
}

function cancelAction(row) {
  return {
    title: `Cancel statement ${row.digest}`, what: `Those that run now are canceled; the next ones run. ${row.statement ?? ""}`,
    command: () => `CANCEL STATEMENT ${row.digest}`,
  };
}

function unblockAction(row) {
  return { title: `Take the order about ${row.digest} back`, what: `It runs without limit again. ${row.statement ?? ""}`, command: () => `UNBLOCK STATEMENT ${row.digest}` };
}

const DATABASE_ACTIONS = {
  PAUSE: "Its backends are closed as their transactions end, and clients wait until Resume.",
  RESUME: "Clients that wait get backends again.",
  RECONNECT: "Each of its backends is replaced: idle ones now, the others when their transaction ends. Clients notice nothing.",
};

function databaseAction(verb, database) {
  return { title: `${verb[0]}${verb.slice(1).toLowerCase()} database ${database}`, what: DATABASE_ACTIONS[verb], command: () => `${verb} ${quoted(database)}` };
}

function killAction(row) {
  return {
    title: `End client ${row.client}`,
    what: `Client ${row.client} (role ${row.user}, ${row.addr}) is disconnected, and its transaction is rolled back. Sessions that wait for its locks go on.`,
    command: () => `KILL_CLIENT ${row.client}`,
  };
}

/** Asks for a confirmation that says what the action does, then runs it. */
function ask(action) {
  const dialog = by("confirm");
  const text = () => action.command(by("limit").value, by("over").value, by("lasts").value);
  const shown = () => say(by("confirm-command"), text());
  say(by("confirm-title"), action.title);
  say(by("confirm-what"), action.what);
  by("limit-field").hidden = action.limit === undefined;
  by("over-field").hidden = !action.over;
  by("lasts-field").hidden = !action.lasts;
  by("limit").value = action.limit ?? "";
  by("limit").oninput = by("over").onchange = by("lasts").onchange = shown;
  shown();
  dialog.returnValue = "";
  dialog.onclose = () => { if (dialog.returnValue === "do") act(text()); };
  dialog.showModal();
}

/** Sends an action; returns the status, 0 if there was no answer. */
async function send(command) {
  const answer = await fetch("/actions", {
    method: "POST", cache: "no-store", credentials: "omit",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` }, body: JSON.stringify({ command }),
  });
  return { status: answer.status, said: await answer.json() };
}

function report(text, isBad) {
  say(by("done"), text);
  by("done").className = isBad ? "bad" : "";
  if (isBad) by("done").scrollIntoView({ block: "nearest" });
}

async function act(command) {
  try {
    const { status: code, said } = await send(command);
    if (code === 401) forget();
    if (code === 200) report(`${clock(Date.now())} ${command}: done. ${said.notices.join(". ")}`, false);
    else report(`${command}: ${said.error}. ${said.detail ?? ""} ${said.hint ?? ""}`, true);
  } catch {
    report(`${command}: pgweir gave no answer; whether it was done is not known.`, true);
  }
}

function forget() {
  token = null;
  document.body.classList.remove("unlocked");
  by("unlock").hidden = false;
  by("lock").hidden = true;
}

by("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = by("token").value;
  by("token").value = "";
  try {
    // An empty command does nothing; its answer says that the token is right.
    const { status: code, said } = await send("");
    if (code !== 200) { forget(); report(said.error + ".", true); return; }
  } catch {
    forget();
    report("pgweir gave no answer.", true);
    return;
  }
  document.body.classList.add("unlocked");
  by("unlock").hidden = true;
  by("lock").hidden = false;
  report("Unlocked: roles, statements, databases and findings have buttons now.", false);
});
by("lock").addEventListener("click", () => { forget(); report("Locked.", false); });

// ---- news ---------------------------------------------------------------------------------------------------------------------

/** Without news for so long, there is no connection, whatever the browser thinks. */
const SILENCE = 5000;
let source = null, heard = 0, isLost = true;

function lost() {
  isLost = true;
  document.body.dataset.link = "lost";
  say(by("link"), status ? `connection lost: this is how it was at ${clock(status.now)} UTC; trying again …` : "no answer; trying again …");
}

function connect() {
  source?.close();
  heard = Date.now();
  source = new EventSource("/events");
  source.addEventListener("lines", (event) => takeLines(JSON.parse(event.data)));
  source.addEventListener("status", (event) => {
    heard = Date.now();
    status = JSON.parse(event.data);
    if (isLost) {
      isLost = false;
      document.body.dataset.link = "live";
      say(by("link"), "live");
    }
    draw();
    if (!document.hidden) show();
  });
  source.addEventListener("error", lost);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && status) show(); });
setInterval(() => {
  if (Date.now() - heard < SILENCE) return;
  lost();
  connect();
}, 1000);
connect();
