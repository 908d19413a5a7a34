// The label page: shows one pair at a time, sends every choice, keeps what cannot be sent yet.
// Text of models comes as parts of the page that the server made: escaped, of few elements, with
// hidden characters visible. Nothing else becomes HTML here.
'use strict';

const THEME = 'preflow.theme';
const RAW = 'preflow.raw';
const AHEAD = 4; // questions held: the one on the screen and three more
const POLL = 5000;
const LOOK = 10000; // between two looks at the server while a pair is read

function stored(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false; // full, or forbidden: the page still works while it is open
  }
}

const theme = stored(THEME, null);
if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;

document.addEventListener('DOMContentLoaded', () => {
  const $ = (id) => document.getElementById(id);
  const { pairs, annotator, scope } = document.body.dataset;
  const OPS = `${scope}.${annotator}.ops.`; // one list a tab: tabs must not overwrite each other's
  const KEPT = `${scope}.${annotator}.kept`;
  const NOTES = `${scope}.${annotator}.notes`;
  const MARKS = `${scope}.${annotator}.marks`;
  const READ = `${scope}.${annotator}.read`; // which guidelines were shown
  const picks = [...document.querySelectorAll('[data-pick]')];
  const reasons = [...document.querySelectorAll('[data-reason]')];
  const guidelines = $('guidelines-box'); // null where there are none
  const WORDS = {
    left_much: 'Answer 1 is much better', left: 'Answer 1 is better', tie: 'A tie',
    right: 'Answer 2 is better', right_much: 'Answer 2 is much better',
    both_bad: 'Both are bad', skip: 'Skipped',
  };

  let deck = []; // questions in the order they will be asked; the first is on the screen
  let past = []; // questions answered since the page was loaded
  let ops = []; // votes and undos that the server has not confirmed
  let notes = stored(NOTES, {});
  let marks = stored(MARKS, {}); // reasons marked before the choice is made
  let progress = null;
  let why = null; // what keeps the votes from coming that are asked for
  let skipped = 0; // pairs of this annotator that could be asked again
  let times = []; // when the last choices were made
  let diff = false;
  let raw = stored(RAW, false) === true; // texts as they are stored, not as Markdown
  let shown = null;
  let since = 0;
  let talk = Promise.resolve(); // requests follow each other: an old answer never undoes a new one
  let queued = false;
  let asking = 0; // requests that have not come back
  let pause = 0;
  let timer = null;
  let poll = null;
  let reached = true;

  const name = (q) => `${q.pair}${q.repeat ? '~' : ''}`;
  const newId = () => [...crypto.getRandomValues(new Uint8Array(16))]
    .map((b) => b.toString(16).padStart(2, '0')).join('');

  // ---- text ------------------------------------------------------------------------------------

  function fill(element, part, more) {
    const page = new DOMParser().parseFromString(raw ? part.raw : part.markdown, 'text/html');
    const nodes = [...page.body.childNodes].map((node) => document.adoptNode(node));
    if (part.cut) {
      const all = document.createElement('button');
      all.type = 'button';
      all.className = 'all';
      all.textContent = 'Show all';
      all.addEventListener('click', async () => {
        all.disabled = true;
        const reply = await fetchJson(`api/text/${more}`).catch(() => null);
        if (reply?.ok) {
          Object.assign(part, reply.data);
          fill(element, part, more);
        } else {
          all.disabled = false;
          say('The rest cannot be loaded now');
        }
      });
      nodes.push(all);
    }
    element.replaceChildren(...nodes);
  }

  function show() {
    const item = deck[0] ?? null;
    document.body.dataset.view = item ? 'work' : asking && reached ? 'wait' : 'done';
    for (const button of picks) {
      button.disabled = !item;
      button.setAttribute('aria-pressed', String(Boolean(item?.was) && item.was === button.dataset.pick));
    }
    for (const button of reasons) {
      const marked = Boolean(item) && (marks[name(item)] ?? []).includes(button.dataset.reason);
      button.disabled = !item;
      button.setAttribute('aria-pressed', String(marked));
    }
    $('note').disabled = !item;
    if (!item) {
      shown = null;
      for (const id of ['prompt', 'one', 'other']) $(id).replaceChildren();
      finished();
      return;
    }
    const second = item.left === 'a' ? 'b' : 'a';
    fill($('prompt'), item.prompt, `${item.pair}/prompt`);
    fill($('one'), item.one, `${item.pair}/${item.left}`);
    fill($('other'), item.other, `${item.pair}/${second}`);
    if (shown !== item) {
      for (const id of ['prompt', 'one', 'other']) $(id).parentElement.scrollTop = 0;
      // Of a conversation what is answered comes last.
      const turns = $('prompt').querySelectorAll(':scope > .turn');
      const [view, last] = [$('prompt').parentElement, turns[turns.length - 1]];
      if (turns.length > 1) view.scrollTop = last.getBoundingClientRect().top - view.getBoundingClientRect().top - 12;
      since = performance.now();
      shown = item;
    }
    $('note').classList.toggle('has', Boolean(notes[name(item)]));
    hint();
  }

  // Where a text goes on below what is seen.
  function hint() {
    for (const id of ['prompt', 'one', 'other']) {
      const view = $(id).parentElement;
      const more = view.scrollTop + view.clientHeight < view.scrollHeight - 3;
      view.parentElement.classList.toggle('more', more);
      view.parentElement.classList.toggle('less', view.scrollTop > 3);
    }
    const view = $('prompt').parentElement;
    $('more').hidden = view.scrollHeight <= view.clientHeight + 3;
  }

  // A screenful on; from the end back to the beginning.
  function more() {
    const view = $('prompt').parentElement;
    const end = view.scrollTop + view.clientHeight >= view.scrollHeight - 3;
    view.scrollTo({ top: end ? 0 : view.scrollTop + view.clientHeight * 0.85 });
    hint();
  }

  function finished() {
    const enough = progress && progress.votes >= progress.goal && !why;
    const [title, text] = !reached
      ? ['Waiting for the server', 'Your votes are kept in this browser. This page goes on by itself.']
      : progress === null
        ? ['One moment', '']
        : ['Thank you', [
          enough ? 'There are enough votes.' : 'Nothing is left for you now.',
          why ? `${why[0].toUpperCase()}${why.slice(1).replaceAll('`', '')}.` : '',
          !enough && !why ? 'Should others leave something over, it appears here.' : '',
        ].filter(Boolean).join(' ')];
    const again = reached && progress !== null && skipped > 0;
    $('done-again').hidden = !again;
    $('done-again').textContent = skipped === 1
      ? 'Ask me again the pair that I skipped' : `Ask me again the ${skipped} pairs that I skipped`;
    $('done-title').textContent = title;
    $('done-text').textContent = text;
    $('done').hidden = false;
    clearTimeout(poll);
    poll = setTimeout(() => { if (!deck.length) drain(); }, POLL);
  }

  function meter() {
    if (!progress) return;
    const waiting = ops.filter((o) => o.vote && o.vote.pick !== 'skip' && !o.vote.repeat).length;
    const votes = progress.votes + waiting;
    const enough = progress.goal > 0 && votes >= progress.goal && !why;
    const words = [`${votes} of ${progress.goal} votes${enough ? ': enough, more still help' : ''}`, `${progress.mine + waiting} by you`];
    const gaps = times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
    if (gaps.length >= 3) {
      const rate = 60000 / Math.max(gaps[gaps.length >> 1], 1);
      words.push(`${rate < 10 ? rate.toFixed(1) : Math.min(Math.round(rate), 999)} a minute`);
      const left = Math.max(progress.goal - votes, 0) / (rate * Math.max(progress.active, 1));
      if (left > 0 && deck.length) words.push(left < 1 ? 'under a minute left' : left < 90 ? `${Math.round(left)} min left` : `${Math.round(left / 60)} h left`);
    }
    $('far').textContent = words.join(' · ');
    $('bar').max = Math.max(progress.goal, 1);
    $('bar').value = Math.min(votes, progress.goal);
  }

  let hush = null;
  function say(text) {
    $('status').textContent = text;
    $('status').classList.add('on');
    clearTimeout(hush);
    hush = setTimeout(() => $('status').classList.remove('on'), 1600);
  }

  function banner(text, action) {
    const box = $('banner');
    box.hidden = !text;
    if (box.firstChild?.nodeValue === text) return;
    box.replaceChildren(document.createTextNode(text ?? ''));
    if (action) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = action[0];
      button.addEventListener('click', action[1]);
      box.append(button);
    }
  }

  // ---- the server --------------------------------------------------------------------------------

  async function fetchJson(path, body) {
    const reply = await fetch(path, body && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(25000),
    });
    const data = await reply.json().catch(() => ({}));
    return { ok: reply.ok, status: reply.status, data };
  }

  const knows = () => ({
    as: annotator, count: AHEAD, known: deck.map((q) => [q.pair, Boolean(q.repeat)]),
  });

  // Takes over what the server wants asked. While votes are under way its view is older than ours:
  // then only new questions are added.
  function take(hand) {
    if (!hand) return;
    progress = hand.progress;
    why = hand.why ?? null;
    skipped = hand.skipped ?? 0;
    const known = new Map(deck.map((q) => [name(q), q]));
    for (const item of hand.items) if (!known.has(name(item))) known.set(name(item), item);
    const order = hand.order.map(([pair, repeat]) => name({ pair, repeat }));
    const current = deck[0];
    if (ops.length === 0) {
      deck = order.map((key) => known.get(key)).filter(Boolean);
      if (current) deck = [current, ...deck.filter((q) => q !== current)];
    } else {
      const busy = new Set([...deck.map(name), ...ops.map((o) => name(o.vote ?? o))]);
      for (const key of order) if (!busy.has(key) && known.has(key)) deck.push(known.get(key));
    }
    if (!deck.length || deck[0] !== shown) show();
    meter();
  }

  function trouble(reply) {
    const waiting = ops.length === 1 ? 'One vote is' : `${ops.length} votes are`;
    const kept = ops.length ? ` ${waiting} kept in this browser and sent as soon as possible.` : '';
    if (!reply || reply.status >= 502) {
      reached = false;
      // A run that waited for votes ends its page when it is over.
      const over = progress && progress.goal > 0 && progress.votes + ops.length >= progress.goal;
      const said = over ? 'There are enough votes, and the labelling may be over: this page can be closed.' : 'The server does not answer.';
      banner(`${reply?.data.error ? `${reply.data.error}.` : said}${kept}`);
    } else {
      const again = reply.status === 409 ? ['Load again', () => location.reload()] : null;
      banner(`${reply.data.error ?? `The server says ${reply.status}`}.${kept}`, again);
    }
    if (!deck.length) show();
  }

  function fine() {
    pause = 0;
    reached = true;
    const kept = stored(KEPT, []).length;
    if (!kept) banner(null);
    else banner(`${kept === 1 ? 'One vote was' : `${kept} votes were`} made on pairs that are gone; kept in this browser.`,
      ['Forget them', () => { store(KEPT, []); banner(null); }]);
  }

  function later(work) {
    clearTimeout(timer);
    pause = Math.min(Math.max(pause * 2, 400), 10000);
    timer = setTimeout(work, pause * (0.75 + Math.random() / 2));
  }

  const inTurn = (work) => {
    asking += 1;
    talk = talk.then(work).catch((error) => console.error(error)).then(() => {
      asking -= 1;
      if (!deck.length) show();
    });
    return talk;
  };

  // Sends what waits, in order, and asks for more.
  function drain() {
    if (queued) return;
    queued = true;
    clearTimeout(timer);
    inTurn(async () => {
      queued = false;
      while (ops.length) if (!await send(ops[0])) return later(drain);
      if (deck.length >= AHEAD) return null;
      const reply = await fetchJson('api/next', { ...knows(), pairs }).catch(() => null);
      if (!reply?.ok) {
        trouble(reply);
        return later(drain);
      }
      fine();
      return take(reply.data);
    });
  }

  async function send(op) {
    const body = op.vote
      ? { ...knows(), vote: { ...op.vote, pairs: op.moved ? pairs : op.vote.pairs } }
      : { ...knows(), ...op, pairs };
    delete body.moved;
    const reply = await fetchJson(op.vote ? 'api/vote' : 'api/undo', body).catch(() => null);
    const useless = [400, 404, 413, 422].includes(reply?.status);
    if (!reply?.ok && !useless) {
      trouble(reply);
      return false;
    }
    ops.shift();
    if (useless && op.vote) store(KEPT, [...stored(KEPT, []), { ...op.vote, error: reply.data.error }]);
    save();
    fine();
    if (reply.ok) take(reply.data.hand);
    return true;
  }

  function push(op) {
    ops.push(op);
    save();
    if (pause === 0) drain();
  }

  // ---- what people do ----------------------------------------------------------------------------

  function choose(pick) {
    const item = deck[0];
    if (!item) return;
    deck.shift();
    const vote = {
      id: newId(), pairs, pair: item.pair, repeat: Boolean(item.repeat), pick, left: item.left,
      ms: Math.round(performance.now() - since), note: (notes[name(item)] ?? '').trim(),
      reasons: marks[name(item)] ?? [],
    };
    delete notes[name(item)];
    delete marks[name(item)];
    store(NOTES, notes);
    store(MARKS, marks);
    past.push({ ...item, was: pick, note: vote.note, reasons: vote.reasons });
    if (past.length > 500) past.shift();
    times = [...times, performance.now()].slice(-21);
    say(WORDS[pick]);
    const button = picks.find((b) => b.dataset.pick === pick);
    button.classList.add('hit');
    setTimeout(() => button.classList.remove('hit'), 140);
    push({ vote });
    show();
    meter();
  }

  // What was skipped, and still lacks votes.
  function askAgain() {
    $('done-again').hidden = true;
    inTurn(async () => {
      if (ops.length) return;
      const reply = await fetchJson('api/again', { ...knows(), pairs }).catch(() => null);
      if (reply?.ok) take(reply.data);
      else say(reply?.data.error ?? 'The server does not answer');
    });
  }

  let undoing = false;
  async function undo() {
    const item = past.pop();
    if (item) {
      deck.unshift(item);
      push({ id: newId(), pair: item.pair, repeat: Boolean(item.repeat) });
      takenBack(item);
    } else if (!undoing) {
      undoing = true;
      await inTurn(undoEarlier);
      undoing = false;
    }
  }

  // A vote from before this page was loaded: only the server knows which.
  async function undoEarlier() {
    if (ops.length || past.length) return;
    const body = { ...knows(), id: newId(), pairs };
    let reply = await fetchJson('api/undo', body).catch(() => null);
    reply ??= await fetchJson('api/undo', body).catch(() => null);
    if (!reply?.ok) {
      say(reply?.status === 404 ? 'There is nothing to take back' : reply?.data.error ?? 'The server does not answer');
      return;
    }
    const { item, past: { pick, note, reasons: marked }, hand } = reply.data;
    deck = [{ ...item, was: pick, note, reasons: marked }, ...deck.filter((q) => name(q) !== name(item))];
    progress = hand?.progress ?? progress;
    takenBack(deck[0]);
  }

  function takenBack(item) {
    if (item.note) notes[name(item)] = item.note;
    const offered = (item.reasons ?? []).filter((r) => reasons.some((b) => b.dataset.reason === r));
    if (offered.length) marks[name(item)] = offered;
    times = [];
    show();
    meter();
    say(`Taken back: ${WORDS[item.was].toLowerCase()}`);
  }

  function mark(button) {
    const item = deck[0];
    if (!button || !item) return;
    const { reason } = button.dataset;
    const marked = marks[name(item)] ?? [];
    marks[name(item)] = marked.includes(reason) ? marked.filter((r) => r !== reason) : [...marked, reason];
    store(MARKS, marks);
    button.setAttribute('aria-pressed', String(!marked.includes(reason)));
    say(marked.includes(reason) ? `Not marked: ${reason}` : `Marked: ${reason}. Now choose`);
  }

  // Opens by itself until it was read once, and again when it says something else.
  function showGuidelines() {
    if (!guidelines) return;
    guidelines.showModal();
    guidelines.scrollTop = 0;
    store(READ, guidelines.dataset.digest);
  }

  function toggleDiff() {
    diff = !diff;
    $('diff').setAttribute('aria-pressed', String(diff));
    document.body.toggleAttribute('data-diff', diff);
    say(diff ? 'Differences are marked' : 'Differences are not marked');
  }

  function toggleRaw() {
    raw = !raw;
    store(RAW, raw);
    $('raw').setAttribute('aria-pressed', String(raw));
    say(raw ? 'Texts as they are stored' : 'Texts as Markdown');
    if (deck[0]) show();
  }

  let noteFor = null;
  function openNote() {
    if (!deck[0]) return;
    noteFor = name(deck[0]);
    $('note-text').value = notes[noteFor] ?? '';
    $('note-box').showModal();
  }

  // Kept letter by letter: the next key after Esc may be a vote already.
  $('note-text').addEventListener('input', () => {
    notes[noteFor] = $('note-text').value;
    store(NOTES, notes);
    $('note').classList.toggle('has', Boolean(notes[noteFor].trim()));
  });

  function keepNote(text) {
    notes[noteFor] = text;
    store(NOTES, notes);
    $('note').classList.toggle('has', Boolean(text.trim()));
    $('note-box').close();
    say(text.trim() ? 'The note is saved with your choice' : 'There is no note');
  }

  // Enter that ends the choice of a character, as in Japanese, keeps nothing.
  $('note-text').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    keepNote($('note-text').value);
  });
  $('note-drop').addEventListener('click', () => keepNote(''));

  function scroll(by) {
    for (const id of ['one', 'other']) $(id).parentElement.scrollBy({ top: by });
  }

  for (const button of picks) button.addEventListener('click', () => choose(button.dataset.pick));
  for (const button of reasons) button.addEventListener('click', () => mark(button));
  $('guidelines')?.addEventListener('click', showGuidelines);
  $('undo').addEventListener('click', undo);
  $('done-undo').addEventListener('click', undo);
  $('done-again').addEventListener('click', askAgain);
  $('more').addEventListener('click', more);
  for (const id of ['prompt', 'one', 'other']) {
    $(id).parentElement.addEventListener('scroll', hint, { passive: true });
  }
  window.addEventListener('resize', () => { if (deck[0]) hint(); });
  $('diff').addEventListener('click', toggleDiff);
  $('diff').setAttribute('aria-pressed', 'false');
  $('raw').addEventListener('click', toggleRaw);
  $('raw').setAttribute('aria-pressed', String(raw));
  $('note').addEventListener('click', openNote);
  $('keys').addEventListener('click', () => $('keys-box').showModal());
  $('theme').addEventListener('click', () => {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const now = document.documentElement.dataset.theme ?? (dark ? 'dark' : 'light');
    document.documentElement.dataset.theme = now === 'dark' ? 'light' : 'dark';
    store(THEME, document.documentElement.dataset.theme);
  });

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector('dialog[open]')) return;
    const box = event.target.closest?.('.text, .prompt');
    const page = document.documentElement.clientHeight / 2;
    const scrolls = { ArrowUp: -60, ArrowDown: 60, PageUp: -page, PageDown: page };
    if (event.key in scrolls && !box) {
      scroll(scrolls[event.key]);
      event.preventDefault();
      return;
    }
    if (event.repeat) return;
    const much = event.shiftKey ? '_much' : '';
    const sides = {
      ArrowLeft: 'left', Digit1: 'left', Numpad1: 'left',
      ArrowRight: 'right', Digit2: 'right', Numpad2: 'right',
    };
    const keys = {
      '=': () => choose('tie'), x: () => choose('both_bad'), s: () => choose('skip'),
      u: undo, d: toggleDiff, r: toggleRaw, p: more, g: showGuidelines, '/': openNote, '?': () => $('keys-box').showModal(),
    };
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    const digit = /^(?:Digit|Numpad)([3-9])$/.exec(event.code);
    if (act) act();
    else if (digit && reasons[digit[1] - 3]) mark(reasons[digit[1] - 3]);
    else if (event.code in sides) choose(sides[event.code] + much);
    else return;
    event.preventDefault();
  });

  window.addEventListener('online', () => { pause = 0; drain(); });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && ops.length) { pause = 0; drain(); }
  });

  // Whatever tabs left behind is sent from here; sent twice, it still counts once.
  function adopt() {
    const left = Object.keys(localStorage).filter((key) => key.startsWith(OPS)).sort();
    ops = left.flatMap((key) => stored(key, [])).map((op) => ({ ...op, moved: true }));
    save();
    for (const key of left) if (key !== OPS + tab) localStorage.removeItem(key);
  }

  function save() {
    const kept = ops.length ? store(OPS + tab, ops) : true;
    if (!ops.length) try { localStorage.removeItem(OPS + tab); } catch { /* nothing is kept there */ }
    if (!kept) banner('This browser keeps nothing: leave the page open until all is sent.');
  }

  // Whoever reads for long sees what others did, and that a server is gone.
  setInterval(() => {
    if (document.hidden || ops.length || asking || !deck.length) return;
    inTurn(async () => {
      const reply = await fetchJson('api/next', { ...knows(), pairs }).catch(() => null);
      if (!reply?.ok) return trouble(reply);
      fine();
      return take(reply.data);
    });
  }, LOOK);

  const tab = newId();
  try { adopt(); } catch { /* no storage: votes are sent, only not kept over a reload */ }
  show();
  drain();
  if (guidelines && stored(READ, null) !== guidelines.dataset.digest) showGuidelines();
});
