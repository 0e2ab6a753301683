// Registers the bridge's methods with the gateway, and lets the control plane's device in.

import { Executor, Refusal } from "./execute.js";
import { Journal } from "./journal.js";
import { PAIRING_INTERVAL_MS } from "./limits.js";

export const BRIDGE_VERSION = "0.1.0";

// The gateway may evaluate this module more than once in one process; there is one journal all the same.
const shared = (globalThis[Symbol.for("servicetsunami.openclaw-bridge")] ??= {});

function executorFor(config) {
  shared.executor ??= new Executor(Journal.open(config.journalDir));
  return shared.executor;
}

function status({ journal, inFlight }) {
  return { bridgeVersion: BRIDGE_VERSION, journalId: journal.id, bootId: journal.bootId, inFlight: inFlight.size, journalEntries: journal.entries.size };
}

/** Approves the pending pairings of the devices that the configuration names, and no others. */
async function approveKnownDevices(known) {
  const { approveDevicePairing, listDevicePairing } = await import("openclaw/plugin-sdk/device-bootstrap");
  const { pending = [] } = await listDevicePairing();
  for (const { requestId, deviceId, scopes = [] } of pending) {
    const allowed = known.get(deviceId);
    if (allowed && scopes.every((scope) => allowed.includes(scope))) await approveDevicePairing(requestId, { callerScopes: allowed });
  }
}

export default {
  id: "openclaw-bridge",
  name: "ServiceTsunami bridge",
  description: "Carries out requests of the ServiceTsunami control plane, each once.",
  register(api) {
    const config = api.pluginConfig ?? {};
    const options = { scope: "operator.write" };
    api.registerGatewayMethod("servicetsunami.status", ({ respond }) => respond(true, status(executorFor(config)), undefined), options);
    api.registerGatewayMethod(
      "servicetsunami.execute",
      async ({ params, respond }) => {
        try {
          respond(true, await executorFor(config).execute(params), undefined);
        } catch (error) {
          // Only what we wrote ourselves goes out: any other message could hold a credential.
          const unexpected = { code: "UNAVAILABLE", message: "the bridge failed", details: { code: "OUTCOME_UNKNOWN" } };
          respond(false, undefined, error instanceof Refusal ? error.shape : unexpected);
        }
      },
      options,
    );
    const known = new Map((config.approvedDevices ?? []).map(({ deviceId, scopes }) => [deviceId, scopes]));
    let timer;
    api.registerService({
      id: "servicetsunami-device-approval",
      start() {
        if (known.size === 0) return;
        const look = () => approveKnownDevices(known).catch((error) => api.logger?.warn?.(`device approval: ${error.message}`));
        look();
        timer = setInterval(look, PAIRING_INTERVAL_MS);
        timer.unref();
      },
      stop: () => clearInterval(timer),
    });
  },
};
