// The plugin's entry: three seams to OpenClaw (gateway methods, a service, device pairing) and no logic.
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import path from "node:path";
import { approveDevicePairing, listDevicePairing } from "openclaw/plugin-sdk/device-bootstrap";
import { resolveStateDir } from "openclaw/plugin-sdk/state-paths";
import { createApprover } from "./approve.js";
import { Bridge } from "./bridge.js";
import { Failure } from "./failure.js";
import { Journal } from "./journal.js";
import { createPerformer } from "./perform.js";

const { version: bridgeVersion } = createRequire(import.meta.url)("./package.json");
const DEFAULT_JOURNAL_DIR = "servicetsunami";

// OpenClaw evaluates a plugin's module more than once in a process; there must be one journal all the same.
const shared = (globalThis[Symbol.for("servicetsunami.openclaw-bridge")] ??= { bootId: randomUUID(), bridges: new Map() });

function openBridge(directory) {
  if (!shared.bridges.has(directory)) {
    const opening = Journal.open(directory).then((journal) => {
      const { perform } = createPerformer();
      return new Bridge({ journal, perform, identity: { bridgeVersion, bootId: shared.bootId } });
    });
    shared.bridges.set(directory, opening);
    opening.catch(() => shared.bridges.delete(directory)); // the next call tries again
  }
  return shared.bridges.get(directory).catch((error) => {
    throw new Failure("UNAVAILABLE", `The journal in ${directory} cannot be opened (${error?.code ?? error?.message}). Give OpenClaw a folder there that it may write.`);
  });
}

/** Gateway handlers must not throw: the gateway would pass the text on as it is. */
function answering(work) {
  return async ({ params, respond }) => {
    try {
      respond(true, await work(params), undefined);
    } catch (error) {
      const failure = error instanceof Failure ? error : new Failure("OUTCOME_UNKNOWN", `The bridge failed (${error?.name ?? "unknown error"}).`);
      respond(false, undefined, failure.toGatewayError());
    }
  };
}

export default {
  id: "openclaw-bridge",
  name: "ServiceTsunami bridge",
  description: "Carries out the control plane's HTTP calls from this instance, each at most once.",

  register(api) {
    const { journalDir = DEFAULT_JOURNAL_DIR, approvedDevices = [] } = api.pluginConfig ?? {};
    const directory = path.resolve(resolveStateDir(), journalDir);
    const scope = { scope: "operator.write" };

    api.registerGatewayMethod("servicetsunami.status", answering(async () => (await openBridge(directory)).status()), scope);
    api.registerGatewayMethod("servicetsunami.execute", answering(async (params) => (await openBridge(directory)).execute(params)), scope);
    api.registerGatewayMethod("servicetsunami.recall", answering(async (params) => (await openBridge(directory)).recall(params)), scope);

    const pairing = { list: listDevicePairing, approve: approveDevicePairing };
    const approver = createApprover({ devices: approvedDevices, pairing, logger: api.logger });
    api.registerService({
      id: "openclaw-bridge",
      start: async () => {
        void approver.start();
        await openBridge(directory).catch((failure) => api.logger.error(failure.message));
      },
      stop: () => approver.stop(),
    });
  },
};
