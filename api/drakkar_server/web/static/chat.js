"use strict";
// A conversation with a served model. What anybody said is text, never markup.
(() => {
  const box = document.querySelector("[data-chat]");
  if (!box) return;
  const by = (id) => document.getElementById(id);
  const list = by("chat-log"), state = by("chat-state"), text = by("chat-text"), stop = by("chat-stop");
  const send = by("chat-form").querySelector("button.primary");
  const headers = { "Content-Type": "application/json", ...JSON.parse(document.body.getAttribute("hx-headers")) };
  const allowed = !send.disabled;
  const NAMES = { user: "You", assistant: "Model" };
  let turns = [], running = null;
  try { turns = JSON.parse(sessionStorage.getItem(box.dataset.key)) || []; } catch { turns = []; }

  const show = (role, content) => {
    const item = document.createElement("article"), who = document.createElement("strong"), what = document.createElement("div");
    item.className = `turn turn-${role}`;
    who.textContent = NAMES[role];
    what.textContent = content;
    item.append(who, what);
    list.append(item);
    list.scrollTop = list.scrollHeight;
    return what;
  };
  const keep = () => { try { sessionStorage.setItem(box.dataset.key, JSON.stringify(turns)); } catch { /* too long to keep */ } };
  for (const turn of turns) show(turn.role, turn.content);
  if (turns.length) state.textContent = "";

  // Events of a stream that is read by fetch, as EventSource can't post.
  async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const kind = /^event: (.*)$/m.exec(part), data = /^data: (.*)$/m.exec(part);
        if (kind && data) yield [kind[1], JSON.parse(data[1])];
      }
    }
  }

  const said = (usage, started, first) => {
    const now = performance.now(), seconds = (now - started) / 1000;
    const parts = [`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`];
    if (first) parts.push(`first after ${Math.round(first - started)} ms`);
    if (first && usage.completion_tokens > 1 && now > first) parts.push(`${((usage.completion_tokens - 1) / ((now - first) / 1000)).toFixed(1)} tokens/s`);
    return `${parts.join(" · ")} · ${seconds.toFixed(1)} s`;
  };

  const ask = async (question) => {
    const complete = by("chat-mode").value === "complete";
    const messages = complete ? [{ role: "user", content: question }] : [...turns, { role: "user", content: question }];
    show("user", question);
    const out = show("assistant", "");
    out.parentElement.setAttribute("aria-busy", "true");
    running = new AbortController();
    send.disabled = true;
    stop.disabled = false;
    state.textContent = "Waiting for the first token…";
    const started = performance.now();
    let answer = "", first = 0, usage = null, problem = "", reason = "";
    try {
      const response = await fetch(box.dataset.chat, { method: "POST", headers, signal: running.signal, body: JSON.stringify({
        messages: messages.slice(-200), complete, model: by("chat-model")?.value || null,
        max_tokens: Number(by("chat-tokens").value) || 256, temperature: Number(by("chat-temperature").value),
      }) });
      if (!response.ok) throw new Error((await response.json()).detail);
      for await (const [kind, data] of events(response.body)) {
        if (data.text) {
          if (!first) { first = performance.now(); state.textContent = "Writing…"; }
          answer += data.text;
          out.textContent = answer;
          list.scrollTop = list.scrollHeight;
        }
        if (kind === "usage") usage = data;
        if (kind === "finish") reason = data.reason;
        if (kind === "problem") problem = data.detail;
      }
    } catch (error) {
      problem = error.name === "AbortError" ? "Stopped." : error.message || "The server does not answer.";
    }
    out.parentElement.removeAttribute("aria-busy");
    // What broke off is shown, but is no part of the conversation that goes on.
    if (answer && !problem) turns.push({ role: "user", content: question }, { role: "assistant", content: answer });
    if (problem) out.parentElement.classList.add("turn-failed");
    if (!answer) out.textContent = problem || "(nothing)";
    const cut = reason === "length" ? " · cut at the limit of tokens" : "";
    state.textContent = problem || (usage ? said(usage, started, first) + cut : `The service told no usage.${cut}`);
    keep();
    running = null;
    send.disabled = !allowed;
    stop.disabled = true;
    text.focus();
  };

  by("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = text.value.trim();
    if (!question || running || !allowed) return;
    text.value = "";
    ask(question);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); by("chat-form").requestSubmit(); }
  });
  stop.addEventListener("click", () => running?.abort());
  by("chat-clear").addEventListener("click", () => { running?.abort(); turns = []; keep(); list.replaceChildren(); state.textContent = "Nothing said yet."; text.focus(); });
  addEventListener("pagehide", () => running?.abort());
})();
