// The page. Everything that came over the network goes into the document as text, never as markup.
"use strict";

const EVERY_MS = 1500;
const $ = (id) => document.getElementById(id);
const cards = new Map();
let before = null;

/** An element with a class, text and children. */
function el(name, className, text, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

/** Sets text only where it differs, so that a selection survives. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function bits(perSecond) {
  if (!(perSecond > 0)) return "0";
  if (perSecond < 1e6) return Math.round(perSecond / 1e3) + " kb/s";
  if (perSecond < 1e9) return (perSecond / 1e6).toFixed(perSecond < 1e7 ? 2 : 1) + " Mb/s";
  return (perSecond / 1e9).toFixed(2) + " Gb/s";
}

function duration(s) {
  const two = (n) => String(n).padStart(2, "0");
  const days = Math.floor(s / 86400), rest = Math.floor(s / 3600) % 24;
  const clock = two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
  if (days) return days + " d " + rest + " h";
  return rest ? rest + ":" + clock : clock;
}

const KINDS = { mpegts: "MPEG-TS", flv: "FLV", ogg: "Ogg", webm: "WebM", mp4: "MP4", mp3: "MP3", adts: "AAC", other: "other" };
const STATES = { "on-air": "on the air", idle: "idle", holding: "waiting for its source", fallback: "fallback", ended: "ended" };

function copyButton(text) {
  const button = el("button", "copy", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    const done = await copy(text());
    button.textContent = done ? "Copied" : "Select it";
    button.classList.toggle("done", done);
    setTimeout(() => { button.textContent = "Copy"; button.classList.remove("done"); }, 1400);
  });
  return button;
}

/** Browsers lend the clipboard to secure pages only; others have the older way. */
async function copy(text) {
  try {
    if (navigator.clipboard) { await navigator.clipboard.writeText(text); return true; }
  } catch { /* the older way */ }
  const area = el("textarea", "", text);
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function way(label, command) {
  const code = el("code", "", command);
  code.title = command;
  return el("div", "way", null, el("b", "", label), code, copyButton(() => command));
}

function fact(label) {
  const value = el("dd", "", "–");
  return [el("div", "", null, el("dt", "", label), value), value];
}

/** A card for a channel. Its player is left alone once it plays. */
function makeCard(channel) {
  const card = { mount: channel.mount, screen: el("div", "screen"), playing: null, shown: null };
  const [listenersBox, listeners] = fact("listeners");
  const [rateBox, rate] = fact("bit rate");
  const [outBox, out] = fact("out");
  const [sinceBox, since] = fact("on for");
  Object.assign(card, { listeners, rate, out, since });
  card.name = el("h2");
  card.state = el("span", "state");
  card.title = el("p", "title");
  card.about = el("p", "about");
  const url = location.origin + channel.href;
  const list = el("a", "button", "Playlist");
  list.href = channel.href + ".m3u";
  const ways = el("div", "ways", null,
    way("VLC", "vlc " + url), way("mpv", "mpv " + url), way("ffplay", "ffplay " + url), way("URL", url));
  const m3u = el("div", "way", null, el("b", "", "m3u"), el("code", "", url + ".m3u"), list);
  ways.append(m3u);
  card.root = el("article", "card", null, card.screen, el("div", "body", null,
    el("div", "head", null, el("div", "", null, card.name, el("div", "mount", channel.mount)), card.state),
    card.title, card.about,
    el("dl", "facts", null, listenersBox, rateBox, outBox, sinceBox), ways));
  return card;
}

/** What plays in the browser for a channel: itself, or a sibling of the same name that browsers know. */
function playable(channel, all) {
  if (channel.plays) return channel;
  const stem = channel.mount.replace(/\.[^./]*$/, "");
  return all.find((c) => c.plays && c.state === "on-air" && c.mount.replace(/\.[^./]*$/, "") === stem) || null;
}

function play(card, channel, muted) {
  const player = el(channel.plays === "audio" ? "audio" : "video");
  player.controls = true;
  player.autoplay = true;
  player.muted = muted;
  player.playsInline = true;
  player.src = channel.href;
  player.addEventListener("error", () => {
    card.playing = null;
    card.shown = null;
    card.failed = true;
  });
  card.playing = channel.mount;
  card.failed = false;
  card.screen.replaceChildren(player);
  player.play().catch(() => { /* the browser waits for a click on its own button */ });
}

function showScreen(card, channel, all) {
  if (card.playing) return;
  const source = playable(channel, all);
  const on = channel.state === "on-air" || channel.state === "fallback";
  const mode = [on, source && source.mount, card.failed].join();
  if (card.shown === mode) return;
  card.shown = mode;
  card.screen.classList.toggle("slim", !on || !source || source.plays === "audio");
  const kind = el("span", "tag", KINDS[channel.kind] || channel.content_type || "");
  if (!channel.kind) kind.hidden = true;
  if (!on && channel.state !== "holding") {
    card.screen.replaceChildren(el("p", "", "Nothing is on the air here yet."), kind);
  } else if (!source) {
    const why = (KINDS[channel.kind] || "This stream") + " is one for VLC, mpv or ffplay: copy an address and open it there.";
    card.screen.replaceChildren(el("p", "", why), kind);
  } else {
    let label = "Play here";
    if (source.mount !== channel.mount) label = "Play " + source.mount + ", its twin for browsers";
    if (card.failed) label = "It did not play. Try again";
    const button = el("button", "play", null, el("i"), el("span", "", label));
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => play(card, source, false));
    card.screen.replaceChildren(button, kind);
  }
}

function rates(channel, at) {
  const old = before && before.channels.get(channel.mount);
  const seconds = old ? (at - before.at) / 1000 : 0;
  if (!(seconds > 0) || channel.bytes_out < old.bytes_out) return { out: 0, in: 0 };
  return {
    out: (channel.bytes_out - old.bytes_out) * 8 / seconds,
    in: Math.max(0, channel.bytes_in - old.bytes_in) * 8 / seconds,
  };
}

function showCard(card, channel, rate) {
  say(card.name, channel.name || channel.mount.slice(1));
  say(card.state, STATES[channel.state] || channel.state);
  card.state.className = "state " + (STATES[channel.state] ? channel.state : "idle");
  say(card.title, channel.title);
  card.title.hidden = !channel.title;
  const about = channel.fallback ? "Listeners hear " + channel.fallback + " instead." : channel.description || "";
  say(card.about, about);
  card.about.hidden = !about;
  say(card.listeners, String(channel.listeners));
  say(card.rate, channel.bitrate ? bits(channel.bitrate) : channel.declared_kbps ? channel.declared_kbps + " kb/s" : "–");
  say(card.out, bits(rate.out));
  say(card.since, channel.state === "idle" || channel.state === "ended" ? "–" : duration(channel.seconds));
}

function showChannels(channels, at) {
  const total = { out: 0, in: 0 };
  const here = new Set();
  for (const channel of channels) {
    here.add(channel.mount);
    let card = cards.get(channel.mount);
    if (!card) {
      card = makeCard(channel);
      cards.set(channel.mount, card);
      const after = [...cards.keys()].filter((mount) => mount > channel.mount).sort()[0];
      $("channels").insertBefore(card.root, after ? cards.get(after).root : null);
    }
    const rate = rates(channel, at);
    total.out += rate.out;
    total.in += rate.in;
    showCard(card, channel, rate);
    showScreen(card, channel, channels);
  }
  for (const [mount, card] of cards) {
    if (here.has(mount)) continue;
    card.root.remove();
    cards.delete(mount);
  }
  $("channels").classList.toggle("single", channels.length === 1);
  $("channels").hidden = channels.length === 0;
  $("empty").hidden = channels.length !== 0;
  before = { at, channels: new Map(channels.map((c) => [c.mount, c])) };
  return total;
}

/** Node ids from the root to here, one line for channels that come the same way. */
function showTopology(channels, node) {
  const ways = new Map();
  for (const channel of channels) {
    if (channel.state === "idle") continue;
    const key = JSON.stringify(channel.path);
    if (!ways.has(key)) ways.set(key, { path: channel.path, mounts: [], listeners: 0 });
    ways.get(key).mounts.push(channel.mount);
    ways.get(key).listeners += channel.listeners;
  }
  const lines = [];
  const arrow = () => el("span", "arrow", "→");
  for (const way of ways.values()) {
    const line = el("div", "path", null, el("span", "which", way.mounts.join(" ")), el("span", "hop", "source"));
    for (const id of way.path) line.append(arrow(), el("span", "hop", id));
    line.append(arrow(), el("span", "hop here", node.id), arrow(), el("span", "", counted(way.listeners, "listener")));
    lines.push(line);
  }
  for (const up of node.upstreams) {
    const what = up.kind === "pull" ? "pulled from " : "upstream ";
    lines.push(el("div", "path", null, el("span", "which", up.mount || "any mount"), el("span", "", what),
      el("span", "hop", up.host + ":" + up.port)));
  }
  if (node.links) lines.push(el("div", "path", null, el("span", "which", "links"), el("span", "", counted(node.links, "link") + " to other nodes")));
  if (node.multicast && node.multicast.mount) {
    const url = (node.multicast.format === "ts" ? "udp://@" : "rtp://@") + node.multicast.to;
    lines.push(el("div", "path", null, el("span", "which", node.multicast.mount), el("span", "", "cast to the LAN at "),
      el("span", "hop", url)));
  }
  $("paths").replaceChildren(...lines);
  $("topology").hidden = lines.length === 0;
}

function counted(n, what) {
  return n + " " + what + (n === 1 ? "" : "s");
}

function showNumbers(channels, node, total) {
  say($("n-listeners"), String(channels.reduce((sum, channel) => sum + channel.listeners, 0)));
  say($("n-out"), bits(total.out));
  say($("n-in"), bits(total.in));
  say($("n-uptime"), duration(node.uptime_s + Math.round((performance.now() - node.at) / 1000)));
  say($("node"), node.software + " · node " + node.id + " · " + node.backend + " · " + counted(node.workers, "worker"));
}

function figure(caption, command) {
  return el("figure", "", null,
    el("figcaption", "", null, el("span", "", caption), copyButton(() => command)), el("pre", "", command));
}

function showPublish() {
  const to = "icecast://source:PASSWORD@" + location.host;
  const lines = (...parts) => parts.join(" \\\n  ");
  $("publish").append(
    figure("A moving test picture with sound, for VLC, mpv and ffplay", lines(
      "ffmpeg -re -f lavfi -i testsrc2=s=1280x720:r=30 -f lavfi -i sine",
      "-c:v libx264 -preset veryfast -g 60 -b:v 2M -pix_fmt yuv420p -c:a aac",
      "-content_type video/mp2t -f mpegts " + to + "/eclipse.ts")),
    figure("A file, also for browsers", lines(
      "ffmpeg -re -i film.mp4",
      "-c:v libvpx -deadline realtime -g 60 -b:v 2M -c:a libvorbis",
      "-content_type video/webm -f webm " + to + "/eclipse.webm")));
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer.json();
}

/** `?play=/mount` plays at once, muted: that is what browsers allow. */
function playAsked(channels) {
  const asked = new URLSearchParams(location.search).get("play");
  const channel = channels.find((c) => c.mount === asked);
  const source = channel && playable(channel, channels);
  if (!source) return false;
  play(cards.get(asked), source, true);
  return true;
}

let asked = !new URLSearchParams(location.search).has("play");
let node = null;
let round = 0;

/** Channels each time; the node, of which less changes, now and then. */
async function refresh() {
  let wait = document.hidden ? 10 * EVERY_MS : EVERY_MS;
  try {
    const { channels } = await get("/api/v1/channels");
    if (round++ % 5 === 0 || !node) node = { ...await get("/api/v1/node"), at: performance.now() };
    const total = showChannels(channels, performance.now());
    showTopology(channels, node);
    showNumbers(channels, node, total);
    asked = asked || playAsked(channels);
    $("trouble").hidden = true;
  } catch {
    say($("trouble"), "The relay does not answer. Trying again…");
    $("trouble").hidden = false;
    node = null;
    wait = 2 * EVERY_MS * (1 + Math.random());
  }
  setTimeout(refresh, wait);
}

showPublish();
refresh();
