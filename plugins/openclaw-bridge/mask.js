// Replaces credentials in what comes back, in every form in which a service could echo them.

export const MASK = "[redacted]";
/** Shorter values are no secrets, and masking them would garble the text. */
const SECRET_CHARS_MIN = 4;

/** All forms of the secrets, the longest first so that none is cut in half by another. */
export function formsOf(secrets) {
  const forms = new Set();
  for (const secret of secrets) {
    if (typeof secret !== "string" || secret.length < SECRET_CHARS_MIN) continue;
    forms.add(secret);
    forms.add(encodeURIComponent(secret));
    forms.add(encodeURIComponent(secret).replaceAll("%20", "+"));
    forms.add(JSON.stringify(secret).slice(1, -1));
    forms.add(JSON.stringify(secret).slice(1, -1).replaceAll("/", "\\/"));
    const base64 = Buffer.from(secret).toString("base64");
    forms.add(base64);
    forms.add(base64.replace(/=+$/, ""));
    forms.add(Buffer.from(secret).toString("base64url"));
    forms.add(Buffer.from(secret).toString("hex"));
  }
  return [...forms].sort((a, b) => b.length - a.length);
}

export function maskText(text, forms) {
  return forms.reduce((masked, form) => masked.replaceAll(form, MASK), text);
}

/** Bytes stay bytes: one character a byte, there and back. */
export function maskBytes(bytes, forms) {
  const text = bytes.toString("latin1");
  const masked = forms.reduce((t, form) => t.replaceAll(Buffer.from(form).toString("latin1"), MASK), text);
  return masked === text ? bytes : Buffer.from(masked, "latin1");
}
