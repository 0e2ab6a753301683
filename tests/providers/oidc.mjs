// A real OpenID provider (oidc-provider) on this machine, for the stories about signing in.
//
//   node oidc.mjs FOLDER CLIENT_ID CLIENT_SECRET REDIRECT_URI SCOPE PORT
//
// FOLDER is where `scripts/bootstrap oidc` put the package. It prints its issuer when it listens, and ends with its
// standard input. Below /_story the stories see what it was asked and make it slow, or away.
import { createServer } from "node:http";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [folder, clientId, clientSecret, redirectUri, scope, port] = process.argv.slice(2);
const entry = join(folder, "node_modules/oidc-provider/lib/index.js");
const { Provider } = await import(pathToFileURL(entry));

const asked = { token: 0, refresh: 0, revocation: 0, revoked: 0 };
const trouble = { status: 0, delay: 0 };
let handle = (_, answer) => answer.writeHead(503).end();

const server = createServer(async (request, answer) => {
  const url = new URL(request.url, "http://story");
  if (url.pathname === "/_story/asked") return answer.end(JSON.stringify(asked));
  if (url.pathname === "/_story/trouble") {
    for (const name of Object.keys(trouble)) trouble[name] = Number(url.searchParams.get(name) ?? 0);
    return answer.end();
  }
  if (request.method === "POST" && ["/token", "/token/revocation"].includes(url.pathname)) {
    asked[url.pathname === "/token" ? "token" : "revocation"] += 1;
    if (trouble.delay > 0) await pause(trouble.delay);
    if (trouble.status > 0) return answer.writeHead(trouble.status).end("<html>It is away</html>");
  }
  handle(request, answer);
});

server.listen(Number(port), "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "client_secret_post",
    }],
    scopes: ["openid", "offline_access", scope],
    features: { revocation: { enabled: true }, devInteractions: { enabled: true } },
    issueRefreshToken: () => true,
    rotateRefreshToken: () => true,
    ttl: { AccessToken: 3600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
    cookies: { keys: ["of a story"] },
    pkce: { required: () => true },
  });
  provider.on("grant.success", (context) => {
    if (context.oidc.params.grant_type === "refresh_token") asked.refresh += 1;
  });
  provider.on("grant.revoked", () => { asked.revoked += 1; });
  handle = provider.callback();
  process.stdout.write(`${issuer}\n`);
});
process.stdin.resume().on("end", () => process.exit(0));
