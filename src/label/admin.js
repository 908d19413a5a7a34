// The figures page: sends what the adjudicator chooses. Everything on it was laid out by the server.
'use strict';

const FOLLOW = 5000;

try {
  const theme = JSON.parse(localStorage.getItem('preflow.theme'));
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* as the system has it */ }

document.addEventListener('DOMContentLoaded', () => {
  const { pairs } = document.body.dataset;
  const status = document.getElementById('status');
  const since = performance.now();

  async function settle(dispute, pick) {
    const id = [...crypto.getRandomValues(new Uint8Array(16))]
      .map((b) => b.toString(16).padStart(2, '0')).join('');
    const vote = {
      id, pairs, pair: dispute.dataset.pair, pick, left: dispute.dataset.left,
      ms: Math.round(performance.now() - since), note: '',
    };
    const buttons = [...dispute.querySelectorAll('button')];
    for (const button of buttons) button.disabled = true;
    const reply = await fetch('api/admin/settle', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ vote }),
    }).catch(() => null);
    const data = await reply?.json().catch(() => null);
    for (const button of buttons) {
      button.disabled = false;
      if (reply?.ok) button.setAttribute('aria-pressed', String(button.dataset.pick === pick));
    }
    dispute.classList.toggle('settled', Boolean(reply?.ok) || dispute.classList.contains('settled'));
    status.textContent = reply?.ok ? 'Settled. Choose again to change it.' : data?.error ?? 'The server does not answer';
    status.classList.add('on');
  }

  // A link for one more annotator.
  document.getElementById('make-link').addEventListener('submit', async (event) => {
    event.preventDefault();
    const name = document.getElementById('link-name').value.trim();
    const reply = await fetch('api/admin/link', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name }),
    }).catch(() => null);
    const data = await reply?.json().catch(() => null);
    if (!reply?.ok) {
      status.textContent = data?.error ?? 'The server does not answer';
      status.classList.add('on');
      return;
    }
    document.getElementById('made-link').hidden = false;
    const link = document.getElementById('link');
    link.value = data.url;
    link.focus();
    link.select();
  });
  document.getElementById('copy-link').addEventListener('click', async () => {
    const link = document.getElementById('link');
    link.select();
    await navigator.clipboard?.writeText(link.value).catch(() => null);
    status.textContent = 'Copied';
    status.classList.add('on');
  });

  // The figures follow the votes; what is being settled stays as it is.
  async function follow() {
    if (document.hidden) return;
    const reply = await fetch('admin').catch(() => null);
    if (!reply?.ok) return;
    const page = new DOMParser().parseFromString(await reply.text(), 'text/html');
    for (const part of ['header', '[aria-labelledby=agreement]', '[aria-labelledby=annotators]']) {
      const [old, now] = [document.querySelector(part), page.querySelector(part)];
      if (old && now && old.outerHTML !== now.outerHTML) old.replaceWith(document.adoptNode(now));
    }
    const known = new Set([...document.querySelectorAll('.dispute')].map((d) => d.dataset.pair));
    const more = [...page.querySelectorAll('.dispute')].filter((d) => !known.has(d.dataset.pair));
    if (more.length) document.getElementById('more').hidden = false;
  }
  setInterval(follow, FOLLOW);

  for (const dispute of document.querySelectorAll('.dispute')) {
    for (const button of dispute.querySelectorAll('button')) {
      button.addEventListener('click', () => settle(dispute, button.dataset.pick));
    }
  }
});
