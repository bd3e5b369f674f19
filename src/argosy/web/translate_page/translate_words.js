// Every word on the page, in English and Chinese. The two tables have the same keys: a test compares them.

export const WORDS = {
  en: {
    skip: "Skip to the text",
    model: "Model",
    theme: "Light or dark",
    title: "Translate",
    local: "The model runs on this server. Nothing you write leaves it.",
    from: "From",
    to: "To",
    text: "Text",
    translation: "Translation",
    swap: "Swap languages",
    translate: "Translate",
    copy: "Copy",
    copied: "Copied",
    hint: "Ctrl+Enter translates",
    noModels: "No model here translates. Serve a T5, or an archive with the handler “translation”.",
    unreachable: "The server cannot be reached. Is it running?",
    refused: "This server wants an API key: reload the page and give it as the password.",
    busy: "The server is busy. Try again in a moment.",
  },
  zh: {
    skip: "跳到文本",
    model: "模型",
    theme: "浅色或深色",
    title: "翻译",
    local: "模型就在这台服务器上运行，您写的内容不会离开它。",
    from: "从",
    to: "到",
    text: "文本",
    translation: "译文",
    swap: "交换语言",
    translate: "翻译",
    copy: "复制",
    copied: "已复制",
    hint: "Ctrl+Enter 翻译",
    noModels: "这里没有可以翻译的模型。请启动一个 T5，或处理器为“translation”的归档。",
    unreachable: "无法连接服务器。它在运行吗？",
    refused: "此服务器需要 API 密钥：请重新加载页面，并将密钥作为密码输入。",
    busy: "服务器正忙，请稍后再试。",
  },
};

/** The name of a language in the page's own language; the model's word for it where the browser has none. */
export function languageName(code, fallback, language) {
  try {
    const name = new Intl.DisplayNames([language], { type: "language", fallback: "none" }).of(code);
    return name ?? fallback;
  } catch {
    return fallback; // not a language tag: a model may call its languages what it likes
  }
}

/** Put the words of `language` into every element that asks for one: data-word, data-label, data-hint. */
export function applyWords(root, language) {
  const words = WORDS[language];
  for (const node of root.querySelectorAll("[data-word]")) node.textContent = words[node.dataset.word];
  for (const node of root.querySelectorAll("[data-label]")) node.setAttribute("aria-label", words[node.dataset.label]);
  for (const node of root.querySelectorAll("[data-hint]")) node.placeholder = words[node.dataset.hint];
}
