// Jobs, pictures and errors in words. Pure but for the language.

import { Refusal, Unreachable } from "./api.js";
import { current, has, seconds, t } from "./text.js";

/** What went wrong and what to do next: {what, next}. The service's own words are English; a code may have others. */
export function explained(error) {
  if (error instanceof Unreachable || error.code === "unreachable") return { what: t("what_unreachable"), next: t("next_unreachable") };
  if (["lost_job", "unsaved"].includes(error.code)) return { what: t(`what_${error.code}`), next: t(`next_${error.code}`) };
  const next = error instanceof Refusal ? error.next : (error.what_to_do ?? "");
  const what = sentence(error.message);
  return current() !== "en" && has(`code_${error.code}`) ? { what: t(`code_${error.code}`), next: what } : { what, next: sentence(next) };
}

/** How a job stands, in one line. */
export function standing(job) {
  const { trouble, state } = job;
  if (state === "failed") return t("state_failed");
  if (state === "cancelled") return t("state_cancelled");
  if (trouble?.kind === "key") return t("state_key");
  if (trouble?.kind === "later") {
    const why = ["queue_full", "rate_limited", "unavailable"].includes(trouble.error.code) ? t(`what_${trouble.error.code}`) : sentence(trouble.error.message);
    return t("state_waiting", { why, s: seconds(trouble.seconds) });
  }
  if (trouble?.kind === "unreachable") return t(job.id ? "state_lost" : "state_retrying");
  if (job.cancelling) return t("state_cancelling");
  if (!job.id && job.ahead) return [job.ahead.first.trouble ? standing(job.ahead.first) : "", t("state_behind", job.ahead)].filter(Boolean).join(" ");
  if (!job.id) return t("state_asking");
  if (job.fetching || state === "done") return t("state_fetching");
  const line = state === "running" ? running(job) : job.position ? t("state_position", { n: job.position }) : t("state_queued");
  return job.eta === null || job.eta === undefined ? line : t("eta", { state: line, s: seconds(job.eta) });
}

function running(job) {
  return job.step ? t("state_running", job) : t("state_starting");
}

/** How a picture was made, short. */
export function facts(picture) {
  return [
    picture.model,
    picture.size.replace("x", " × "),
    t("fact_steps", { n: picture.steps }),
    picture.guided ? t("fact_guidance", { n: picture.guidance }) : "",
    t("fact_seed", { n: picture.seed }),
    picture.negative ? t("fact_without", { what: picture.negative }) : "",
    picture.seconds ? t("taken", { s: seconds(picture.seconds) }) : "",
    picture.device ? t("on_device", { device: picture.device }) : "",
  ].filter(Boolean);
}

/** The name of a downloaded file: what it shows, and what tells it from others. */
export function fileName(picture) {
  const shown = picture.prompt.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48).replace(/^-|-$/g, "");
  return `${shown || "picture"}-${picture.seed}.${picture.format === "jpeg" ? "jpg" : picture.format}`;
}

function sentence(text = "") {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return first && !/[.!?。！？]$/.test(first) ? `${first}.` : first;
}
