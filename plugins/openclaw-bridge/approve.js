// Approves pairing requests of the devices that the deployment listed, so that a control plane that is not
// on this machine gets its scopes without a person. Nobody else's, and no scope beyond the listed ones.
import { APPROVAL_IDLE_SWEEP_MS, APPROVAL_SWEEP_MS } from "./limits.js";

/**
 * `pairing` is `{list, approve}` of the OpenClaw SDK. Returns `{start, stop}`: sweeps follow one another,
 * often while a listed device is not paired yet, seldom after that.
 */
export function createApprover({ devices, pairing, logger }) {
  const allowed = new Map(devices.map(({ deviceId, scopes }) => [deviceId, new Set(scopes)]));
  let timer;
  let stopped = false;

  async function loop() {
    const settled = await sweep(allowed, pairing, logger).catch((error) => {
      logger.warn(`device approval failed, trying again: ${error?.message ?? error}`);
      return false;
    });
    if (stopped) return;
    timer = setTimeout(loop, settled ? APPROVAL_IDLE_SWEEP_MS : APPROVAL_SWEEP_MS);
    timer.unref();
  }

  return {
    start: () => (allowed.size === 0 ? undefined : loop()),
    stop: () => {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** One round. True if every listed device is paired and asks for nothing more. */
export async function sweep(allowed, pairing, logger) {
  const { pending = [], paired = [] } = await pairing.list();
  const wanted = pending.filter(({ deviceId, scopes = [] }) => scopes.every((scope) => allowed.get(deviceId)?.has(scope)) && allowed.has(deviceId));
  for (const { requestId, deviceId } of wanted) {
    await pairing.approve(requestId, { callerScopes: [...allowed.get(deviceId)] });
    logger.info(`approved the listed device ${deviceId.slice(0, 12)}`);
  }
  const known = new Set(paired.map(({ deviceId }) => deviceId));
  return wanted.length === 0 && [...allowed.keys()].every((deviceId) => known.has(deviceId));
}
