//! Signing in for a credential, at a real OpenID provider; and what strangers may answer.

use crate::{
    Stories,
    ground::{Ground, Server, text},
    story,
};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::sync::{Arc, Mutex};
use tsunami::{
    app::App,
    config::Config,
    id::{CredentialId, GrantId, SkillConfigId, TenantId},
    marketplace::revocations,
    oauth,
    vault::{NewValue, Renewal, Unusable},
};
use tsunami_tests::provider::{CLIENT_ID, CLIENT_SECRET, PUBLIC_URL, Provider, SCOPE, sign_in};

pub fn stories(stories: &mut Stories, server: &Arc<Server>) {
    macro_rules! tell {
        ($($name:ident),+ $(,)?) => {$(
            story(stories, server, concat!("oauth::", stringify!($name)), $name);
        )+};
    }
    tell!(
        a_person_signs_in_and_the_token_is_a_credential,
        a_form_can_be_drawn_of_what_a_skill_takes,
        nobody_is_asked_whom_nobody_agreed_to,
        a_state_is_good_once_and_for_a_time,
        only_who_began_it_confirms_and_with_the_code_of_the_page,
        what_was_changed_on_the_way_comes_to_nothing,
        a_rotated_refresh_token_takes_the_place_of_the_old_one,
        two_hosts_renew_once,
        a_grant_that_ended_asks_a_person_to_sign_in_again,
        a_provider_that_is_away_is_waited_for,
        what_is_revoked_here_is_revoked_there,
        what_nobody_confirms_is_revoked,
        what_a_removed_skill_was_granted_is_revoked,
        what_a_revoked_plugin_asked_for_goes_nowhere,
        a_sign_in_is_not_forgotten_while_its_code_is_exchanged,
        a_renewal_that_a_new_sign_in_overtook_keeps_nothing,
        who_renews_and_who_revokes_do_not_wait_for_each_other,
        two_who_store_a_value_at_once_are_both_answered,
        hostile_answers_leave_nothing_behind,
    );
}

/// A tenant with Gmail, whose provider is another one than Google.
struct Company {
    ground: Ground,
    tenant: TenantId,
    key: String,
}

/// A sign-in, as the API gave it.
struct Begun {
    id: String,
    url: String,
}

/// What the gateway shows a browser.
struct Page {
    status: StatusCode,
    html: String,
}

impl Page {
    fn code(&self) -> String {
        let (_, rest) = self.html.split_once("id=\"code\">").expect("a code");
        rest.split_once('<').expect("its end").0.to_owned()
    }
}

fn allowing(host: &str) -> impl FnOnce(&mut Config) {
    let host = host.to_owned();
    move |config| {
        config.http.public_url = PUBLIC_URL.to_owned();
        config.skills.private_network_hosts = vec![host];
    }
}

impl Company {
    async fn found(ground: Ground, host: &str) -> Self {
        let ground = ground.with(allowing(host)).await;
        let (tenant, key) = ground.tenant("acme").await;
        ground.install("gmail", &key).await;
        Self {
            tenant: tenant.parse().expect("an id"),
            ground,
            key,
        }
    }

    /// With the client registered at an issuer.
    async fn registered(ground: Ground, provider: &Provider) -> Self {
        let company = Self::found(ground, &provider.host()).await;
        let registration = company.registration(&provider.issuer, &[provider.host()]);
        let registered = company.ask(Method::PUT, "/skill-creds/oauth/client", registration);
        assert_eq!(registered.await.ok()["registered"], true);
        company
    }

    fn registration(&self, issuer: &str, hosts: &[String]) -> Value {
        json!({
            "skill": "gmail", "key": "access_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
            "issuer": issuer, "hosts": hosts,
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> crate::ground::Answer {
        self.ground.ask(method, path, &self.key, body).await
    }

    async fn begin(&self) -> Begun {
        let asked = json!({ "skill": "gmail", "key": "access_token" });
        let begun = self.ask(Method::POST, "/skill-creds/oauth/start", asked);
        let begun = begun.await.ok();
        Begun {
            id: text(&begun["id"]),
            url: text(&begun["authorization_url"]),
        }
    }

    async fn come_back(&self, query: &str) -> Page {
        let request = Request::get(format!("/api/v1/skill-creds/oauth/callback?{query}"));
        let request = request.body(Body::empty()).expect("a request");
        let response = self.ground.send(request).await;
        let status = response.status();
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].clone();
        assert!(
            policy
                .to_str()
                .expect("a text")
                .contains("default-src 'none'")
        );
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let html = String::from_utf8(bytes.expect("a body").to_vec()).expect("UTF-8");
        Page { status, html }
    }

    async fn confirm(&self, id: &str, code: &str) -> crate::ground::Answer {
        let body = json!({ "sign_in_id": id, "code": code });
        self.ask(Method::POST, "/skill-creds/oauth/confirm", body)
            .await
    }

    /// All of it; gives the credential.
    async fn signed_in(&self) -> Value {
        let begun = self.begin().await;
        let back = sign_in(&begun.url).await.expect("the browser comes back");
        let page = self.come_back(&back).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.html);
        self.confirm(&begun.id, &page.code()).await.ok()
    }

    async fn sql(&self, statement: &str) {
        let mut database = self.ground.database("postgres").await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut database)
            .await
            .expect("it is done");
    }

    /// The one text that a query gives.
    async fn read(&self, query: &str) -> String {
        let mut database = self.ground.database("postgres").await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut database)
            .await
            .expect("a text")
    }

    async fn grant(&self) -> GrantId {
        let id = self
            .read("select id::text from oauth_grants order by id desc limit 1")
            .await;
        id.parse().expect("an id")
    }

    async fn status(&self) -> String {
        self.read("select status from oauth_grants order by id desc limit 1")
            .await
    }

    /// The token expires within the time in which it is renewed before use.
    async fn expires_soon(&self, seconds: i32) {
        for table in ["oauth_grants", "skill_credentials"] {
            let at = format!("now() + interval '{seconds} s'");
            self.sql(&format!(
                "update {table} set expires_at = {at} where expires_at is not null"
            ))
            .await;
        }
    }

    async fn all_is_due(&self) {
        self.sql(
            "update oauth_grants set due_at = now() - interval '1 s' where due_at is not null",
        )
        .await;
    }

    /// As a call would open it.
    async fn open(&self, app: &App, renewal: Renewal) -> Result<String, Unusable> {
        let config = self.read("select id::text from skill_configs where skill_name = 'gmail'");
        let config: SkillConfigId = config.await.parse().expect("an id");
        let mut tx = app.db().tenant(self.tenant).await.expect("a transaction");
        let keys = ["access_token".to_owned()];
        let closed = app.vault().closed(&mut tx, config).await;
        let closed = closed.expect("credentials are read");
        let opened = closed.open(app, &keys, renewal);
        let opened = opened.expect("the vault opens");
        opened.map(|mut opened| opened.remove(0).value.to_string())
    }

    async fn token(&self) -> String {
        let opened = self.open(&self.ground.app, Renewal::First).await;
        opened.expect("it can be used")
    }

    async fn renew(&self) -> Result<(), tsunami::problem::Problem> {
        oauth::renew_for_use(&self.ground.app, self.tenant, self.grant().await).await
    }

    async fn sweep(&self) {
        oauth::renew::sweep_once(&self.ground.app)
            .await
            .expect("a round");
    }

    /// Whether any row of any table shows it.
    async fn tables_show(&self, what: &str) -> bool {
        let mut database = self.ground.database("postgres").await;
        let tables: Vec<String> = sqlx::query_scalar(
            "select relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and relkind = 'r'",
        )
        .fetch_all(&mut database)
        .await
        .expect("the tables");
        assert!(tables.contains(&"oauth_grants".to_owned()));
        let hex: String = what.bytes().map(|byte| format!("{byte:02x}")).collect();
        for table in tables {
            let query = format!(
                "select exists (select from {table} t where position('{what}' in t::text) > 0 or position('{hex}' in t::text) > 0)"
            );
            let shows: bool = sqlx::query_scalar(AssertSqlSafe(query))
                .fetch_one(&mut database)
                .await
                .expect("an answer");
            if shows {
                return true;
            }
        }
        false
    }
}

async fn a_person_signs_in_and_the_token_is_a_credential(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let begun = company.begin().await;
    let query = begun.url.split_once('?').expect("a query").1;
    for part in [
        "code_challenge_method=S256",
        "access_type=offline",
        "prompt=consent",
        "state=",
    ] {
        assert!(query.contains(part), "{query}");
    }
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    let page = company.come_back(&back).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.html);
    let before = company.open(&company.ground.app, Renewal::First).await;
    assert!(matches!(before, Err(Unusable::Missing(_))), "{before:?}");
    let code = page.code().to_lowercase().replace('-', " ");
    let credential = company.confirm(&begun.id, &code).await.ok();
    assert_eq!(credential["type"], "oauth_token");
    assert_eq!(credential["status"], "active");
    assert_eq!(credential["version"], 1);
    assert!(credential["expires_at"].is_string());
    let token = company.token().await;
    assert!(
        text(&credential["last_4"]).len() == 4 && token.ends_with(&text(&credential["last_4"]))
    );
    let state = between(&back, "state=");
    let authorization_code = between(&back, "code=");
    for secret in [
        token.as_str(),
        CLIENT_SECRET,
        &state,
        &authorization_code,
        &page.code(),
    ] {
        assert!(!company.tables_show(secret).await, "{secret} is in a table");
        if secret != page.code() {
            assert!(!page.html.contains(secret), "{}", page.html);
        }
    }
    assert!(
        company.tables_show("access_token").await,
        "the search finds nothing"
    );
    let again = company.confirm(&begun.id, &page.code()).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

fn between(query: &str, name: &str) -> String {
    let (_, rest) = query.split_once(name).expect("the parameter");
    rest.split('&').next().unwrap_or_default().to_owned()
}

async fn a_form_can_be_drawn_of_what_a_skill_takes(ground: Ground) {
    let company = Company::found(ground, "127.0.0.1:9").await;
    let path = "/skills/gmail/credential-schema";
    let schema = company.ask(Method::GET, path, Value::Null).await.ok();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["required"], json!(["access_token"]));
    let token = &schema["properties"]["access_token"];
    assert_eq!(token["title"], "Google access token");
    assert_eq!(
        (&token["writeOnly"], &token["x-kind"]),
        (&json!(true), &json!("oauth_token"))
    );
    assert_eq!(token["examples"], json!(["ya29...."]));
    assert_eq!(token["x-scopes"], json!([SCOPE]));
    assert_eq!(
        token["x-oauth"]["token_url"],
        "https://oauth2.googleapis.com/token"
    );
    assert_eq!(schema["properties"]["client_id"]["x-oauth"], Value::Null);
    let absent = company.ask(Method::GET, "/skills/jira/credential-schema", Value::Null);
    assert_eq!(absent.await.status, StatusCode::NOT_FOUND);
}

async fn nobody_is_asked_whom_nobody_agreed_to(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::found(ground, &provider.host()).await;
    let start = json!({ "skill": "gmail", "key": "access_token" });
    let unregistered = company
        .ask(Method::POST, "/skill-creds/oauth/start", start.clone())
        .await;
    assert_eq!(unregistered.json["code"], "oauth_client_missing");
    let client = "/skill-creds/oauth/client";
    let shown = company
        .ask(
            Method::GET,
            &format!("{client}?skill=gmail&key=access_token"),
            Value::Null,
        )
        .await
        .ok();
    assert_eq!(
        shown["hosts"],
        json!(["accounts.google.com", "oauth2.googleapis.com"])
    );
    assert_eq!(
        shown["redirect_uri"],
        format!("{PUBLIC_URL}/api/v1/skill-creds/oauth/callback")
    );
    let register = |issuer: &str, hosts: &[String]| {
        let body = company.registration(issuer, hosts);
        company.ask(Method::PUT, client, body)
    };
    let other = register(&provider.issuer, &["accounts.google.com".to_owned()]).await;
    assert_eq!(other.json["code"], "hosts_not_agreed");
    assert_eq!(other.json["hosts"], json!([provider.host()]));
    // On this machine, and not listed by the operator; and by a name that is another's.
    for issuer in [
        "http://127.0.0.1:1",
        "https://127.0.0.1:1",
        "https://169.254.169.254",
    ] {
        let refused = register(issuer, &[provider.host()]).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{issuer}");
        assert!(
            text(&refused.json["detail"]).contains("private_network_hosts"),
            "{}",
            refused.json
        );
    }
    let slash = register(&format!("{}/", provider.issuer), &[provider.host()]).await;
    assert!(
        text(&slash.json["detail"]).contains("another name"),
        "{}",
        slash.json
    );
    let still = company
        .ask(Method::POST, "/skill-creds/oauth/start", start)
        .await;
    assert_eq!(still.json["code"], "oauth_client_missing");
    assert_eq!(provider.asked("token").await, 0);
    let pasted = json!({ "skill": "gmail", "key": "client_id" });
    let pasted = company
        .ask(Method::POST, "/skill-creds/oauth/start", pasted)
        .await;
    assert!(
        text(&pasted.json["detail"]).contains("access_token"),
        "{}",
        pasted.json
    );
}

async fn a_state_is_good_once_and_for_a_time(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let unknown = |page: &Page| {
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.html.contains("not known"), "{}", page.html);
    };
    let begun = company.begin().await;
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    assert_eq!(company.come_back(&back).await.status, StatusCode::OK);
    unknown(&company.come_back(&back).await);
    assert_eq!(
        provider.asked("token").await,
        1,
        "the code was exchanged once"
    );

    let late = company.begin().await;
    let back = sign_in(&late.url).await.expect("the browser comes back");
    company
        .sql("update oauth_grants set expires_at = now() - interval '1 s', due_at = now() - interval '1 s' where status = 'asked'")
        .await;
    unknown(&company.come_back(&back).await);
    for query in [
        "",
        "code=x",
        "state=x&code=x",
        "state=&code=",
        "state=x&state=x&code=x",
    ] {
        unknown(&company.come_back(query).await);
    }
    assert_eq!(provider.asked("token").await, 1);
    company.sweep().await;
    let left = company
        .read("select string_agg(status, ',') from oauth_grants")
        .await;
    assert_eq!(left, "granted", "what nobody came back for is gone");
    for _ in 1..oauth::OPEN_SIGN_INS_MAX {
        company.begin().await;
    }
    let asked = json!({ "skill": "gmail", "key": "access_token" });
    let more = company
        .ask(Method::POST, "/skill-creds/oauth/start", asked)
        .await;
    assert_eq!(more.status, StatusCode::TOO_MANY_REQUESTS);
}

async fn only_who_began_it_confirms_and_with_the_code_of_the_page(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let (_, stranger) = company.ground.tenant("stranger").await;
    let colleague = json!({ "name": "colleague", "roles": ["admin"] });
    let colleague = company.ask(Method::POST, "/api-keys", colleague).await.ok();
    let begun = company.begin().await;
    let early = company.confirm(&begun.id, "0000-0000").await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    let code = company.come_back(&back).await.code();
    let body = json!({ "sign_in_id": begun.id, "code": code });
    let path = "/skill-creds/oauth/confirm";
    let other = company.ground.post(path, &stranger, body.clone()).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let other = company
        .ground
        .post(path, &text(&colleague["secret"]), body)
        .await;
    assert_eq!(other.json["code"], "not_your_sign_in");
    for left in (1..oauth::CONFIRMATIONS_MAX).rev() {
        let wrong = company.confirm(&begun.id, "0000-0000").await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            text(&wrong.json["detail"]).contains(&left.to_string()),
            "{}",
            wrong.json
        );
    }
    let last = company.confirm(&begun.id, "0000-0000").await;
    assert_eq!(last.json["code"], "sign_in_ended");
    let late = company.confirm(&begun.id, &code).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    company.sweep().await;
    assert_eq!(company.status().await, "ended");
    assert_eq!(
        provider.asked("revocation").await,
        1,
        "the tokens are revoked"
    );
}

async fn what_was_changed_on_the_way_comes_to_nothing(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    // Another redirect URI: the provider sends nobody anywhere.
    let begun = company.begin().await;
    let elsewhere = begun.url.replace("oauth%2Fcallback", "oauth%2Fcallbackx");
    assert_ne!(elsewhere, begun.url);
    assert_eq!(sign_in(&elsewhere).await, None);
    // Without PKCE, or with a weaker method: the provider refuses, in its own words.
    let challenge = between(&begun.url, "code_challenge=");
    let without = begun.url.replace(
        &format!("&code_challenge={challenge}&code_challenge_method=S256"),
        "",
    );
    let weaker = company
        .begin()
        .await
        .url
        .replace("method=S256", "method=plain");
    for url in [without, weaker] {
        let back = sign_in(&url).await.expect("the browser comes back");
        let page = company.come_back(&back).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.html.contains("invalid_request"), "{}", page.html);
        let ended = "select count(*)::text from oauth_grants where status = 'ended'";
        assert_ne!(company.read(ended).await, "0");
    }
    assert_eq!(provider.asked("token").await, 0);
    // The code of one sign-in in another: its verifier is not the right one.
    let (first, second) = (company.begin().await, company.begin().await);
    let stolen = sign_in(&first.url).await.expect("the browser comes back");
    let own = sign_in(&second.url).await.expect("the browser comes back");
    let swapped = own.replace(&between(&own, "code="), &between(&stolen, "code="));
    let page = company.come_back(&swapped).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.html.contains("invalid_grant"), "{}", page.html);
    // From another issuer than was asked, or from nobody.
    let iss = between(&own, "iss=");
    let third = company.begin().await;
    let back = sign_in(&third.url).await.expect("the browser comes back");
    let mixed = back.replace(&iss, "https%3A%2F%2Fevil.example");
    assert!(company.come_back(&mixed).await.html.contains("RFC 9207"));
    let fourth = company.begin().await;
    let back = sign_in(&fourth.url).await.expect("the browser comes back");
    let nameless = back.replace(&format!("&iss={iss}"), "");
    assert_ne!(nameless, back);
    assert!(company.come_back(&nameless).await.html.contains("RFC 9207"));
    // What a provider says is text, and ends the sign-in.
    let fifth = company.begin().await;
    let state = between(&fifth.url, "state=");
    let said =
        format!("state={state}&iss={iss}&error=access_denied&error_description=%3Cscript%3E+no");
    let page = company.come_back(&said).await;
    assert!(
        page.html.contains("access_denied: &lt;script&gt; no"),
        "{}",
        page.html
    );
    let page = company
        .come_back(&format!("state={state}&iss={iss}&code=x"))
        .await;
    assert!(page.html.contains("not known"), "{}", page.html);
    assert_eq!(provider.asked("token").await, 1);
}

async fn a_rotated_refresh_token_takes_the_place_of_the_old_one(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let credential = company.signed_in().await;
    let mut tokens = vec![company.token().await];
    for version in 2..5 {
        company.expires_soon(30).await;
        let due = company.open(&company.ground.app, Renewal::First).await;
        assert!(matches!(due, Err(Unusable::Due(_))), "{due:?}");
        company.renew().await.expect("it is renewed");
        let token = company.token().await;
        assert!(!tokens.contains(&token));
        assert!(!company.tables_show(&token).await);
        tokens.push(token);
        let path = format!("/skill-creds/{}", text(&credential["id"]));
        let shown = company.ask(Method::GET, &path, Value::Null).await.ok();
        assert_eq!(shown["version"], version);
    }
    assert_eq!(provider.asked("refresh").await, 3);
    // The sweep does it unasked, and leaves alone what is fresh.
    company.renew().await.expect("there is nothing to do");
    company.sweep().await;
    assert_eq!(provider.asked("refresh").await, 3);
    company.all_is_due().await;
    company.sweep().await;
    assert_eq!(provider.asked("refresh").await, 4);
    assert!(!tokens.contains(&company.token().await));
}

async fn two_hosts_renew_once(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    company.signed_in().await;
    let before = company.token().await;
    let other = company.ground.host(|_| {}).await;
    company.expires_soon(30).await;
    company.all_is_due().await;
    provider.trouble(0, 500).await;
    let grant = company.grant().await;
    let mut asked = Vec::new();
    for app in [&company.ground.app, &other] {
        for _ in 0..5 {
            let (app, tenant) = (app.clone(), company.tenant);
            asked.push(tokio::spawn(async move {
                oauth::renew_for_use(&app, tenant, grant).await
            }));
        }
        let app = app.clone();
        asked.push(tokio::spawn(
            async move { oauth::renew::sweep_once(&app).await },
        ));
    }
    for asked in asked {
        asked.await.expect("it ends").expect("it is renewed");
    }
    assert_eq!(provider.asked("refresh").await, 1);
    assert_eq!(
        provider.asked("token").await,
        2,
        "one code, one refresh token"
    );
    let seen = [&company.ground.app, &other].map(|app| company.open(app, Renewal::First));
    for token in futures::future::join_all(seen).await {
        assert_ne!(token.expect("it can be used"), before);
    }
    // Whoever comes back after the lease ran out, and was overtaken, writes nothing.
    company.expires_soon(30).await;
    let (slow, tenant) = (other.clone(), company.tenant);
    provider.trouble(0, 1500).await;
    let slow = tokio::spawn(async move { oauth::renew_for_use(&slow, tenant, grant).await });
    crate::ground::until("the slow one has the grant", async || {
        company
            .read("select (leased_until is not null)::text from oauth_grants")
            .await
            == "true"
    })
    .await;
    company.sql("update oauth_grants set leased_until = null, fence = fence + 1, expires_at = now() + interval '1 h', error = 'mine'").await;
    slow.await
        .expect("it ends")
        .expect("somebody else renewed it");
    assert_eq!(company.read("select error from oauth_grants").await, "mine");
}

async fn a_grant_that_ended_asks_a_person_to_sign_in_again(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let credential = company.signed_in().await;
    // Somebody uses the refresh token past the gateway: the provider ends all that came of the sign-in, once the old
    // one is used again.
    let held = held(&company).await;
    assert_eq!(provider.refresh(&held).await, StatusCode::OK);
    company.expires_soon(30).await;
    let problem = company.renew().await.expect_err("it has ended");
    assert_eq!(
        (problem.status(), problem.code()),
        (StatusCode::CONFLICT, "credential_to_be_renewed")
    );
    assert!(problem.detail().contains("oauth/start"), "{problem}");
    assert_eq!(company.status().await, "to_renew");
    let opened = company.open(&company.ground.app, Renewal::First).await;
    assert!(
        matches!(opened, Err(Unusable::SignInEnded(_))),
        "{opened:?}"
    );
    let path = format!("/skill-creds/{}", text(&credential["id"]));
    let shown = company.ask(Method::GET, &path, Value::Null).await.ok();
    assert_eq!(shown["status"], "expired");
    let asked = provider.asked("token").await;
    company.renew().await.expect_err("it has ended");
    company.sweep().await;
    assert_eq!(
        provider.asked("token").await,
        asked,
        "nobody asks again in vain"
    );
    assert_eq!(company.signed_in().await["version"], 2);
    company.token().await;
}

/// The refresh token that the gateway holds, opened as the gateway opens it.
async fn held(company: &Company) -> String {
    let app = &company.ground.app;
    let mut tx = app
        .db()
        .tenant(company.tenant)
        .await
        .expect("a transaction");
    let grant = company.grant().await;
    let row = sqlx::query_as::<_, (uuid::Uuid, Vec<u8>, i32)>(
        "select data_key_id, sealed, sealed_version from oauth_grants where id = $1",
    )
    .bind(grant.uuid())
    .fetch_one(&mut *tx)
    .await
    .expect("the grant");
    let about = tsunami_sealed::Aad::new("oauth-grant")
        .field(company.tenant.uuid().as_bytes())
        .field(grant.uuid().as_bytes())
        .field(&row.2.to_be_bytes());
    let sealed = tsunami::vault::SealedValue {
        data_key: row.0.into(),
        bytes: row.1,
    };
    let opened = app
        .vault()
        .open(&mut tx, &about, &sealed)
        .await
        .expect("it opens");
    let held: Value = serde_json::from_slice(&opened).expect("JSON");
    text(&held["refresh_token"])
}

async fn a_provider_that_is_away_is_waited_for(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let credential = company.signed_in().await;
    let token = company.token().await;
    provider.trouble(503, 0).await;
    company.expires_soon(30).await;
    company.renew().await.expect("the token is still good");
    let opened = company.open(&company.ground.app, Renewal::Tried).await;
    assert_eq!(opened.expect("it is used"), token);
    company.expires_soon(-1).await;
    let problem = company.renew().await.expect_err("it has expired");
    assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem.retry_after().is_some());
    assert_eq!(company.status().await, "active");
    // Many at once: one asks, and all are told.
    let asked = provider.asked("token").await;
    provider.trouble(503, 2000).await;
    let told = futures::future::join_all((0..5).map(|_| company.renew())).await;
    assert!(told.iter().all(Result::is_err));
    assert_eq!(provider.asked("token").await, asked + 1);
    provider.trouble(503, 0).await;
    // What is revoked meanwhile acts at once, and is told when somebody is there.
    let path = format!("/skill-creds/{}", text(&credential["id"]));
    company.ask(Method::DELETE, &path, Value::Null).await.ok();
    let opened = company.open(&company.ground.app, Renewal::First).await;
    assert!(matches!(opened, Err(Unusable::Revoked(_))), "{opened:?}");
    company.sweep().await;
    assert_eq!(company.status().await, "ending");
    let asked = provider.asked("revocation").await;
    assert_eq!(asked, 1);
    company.sweep().await;
    assert_eq!(
        provider.asked("revocation").await,
        asked,
        "there is a pause"
    );
    provider.trouble(0, 0).await;
    company.all_is_due().await;
    company.sweep().await;
    assert_eq!(company.status().await, "ended");
    assert_eq!(provider.asked("revoked").await, 1);
}

async fn what_is_revoked_here_is_revoked_there(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let credential = company.signed_in().await;
    let refresh_token = held(&company).await;
    let path = format!("/skill-creds/{}", text(&credential["id"]));
    company.ask(Method::DELETE, &path, Value::Null).await.ok();
    company.sweep().await;
    assert_eq!(provider.asked("revoked").await, 1);
    assert_eq!(
        provider.refresh(&refresh_token).await,
        StatusCode::BAD_REQUEST
    );
    let kept = company
        .read("select (sealed is null)::text from oauth_grants")
        .await;
    assert_eq!(kept, "true", "nothing is held any more");
    // A pasted one takes the place of one that was had by signing in.
    company.signed_in().await;
    let pasted = json!({ "skill": "gmail", "key": "access_token", "value": "ya29.pasted-by-a-person-CANARY" });
    company.ask(Method::POST, "/skill-creds", pasted).await.ok();
    company.sweep().await;
    assert_eq!(provider.asked("revoked").await, 2);
    // A new sign-in with the same client does not: at the provider it may be the same grant.
    company.signed_in().await;
    company.signed_in().await;
    company.sweep().await;
    assert_eq!(provider.asked("revoked").await, 2);
    company.expires_soon(30).await;
    company.renew().await.expect("the new sign-in lives");
}

async fn what_a_removed_skill_was_granted_is_revoked(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let remove = async |query: &str| {
        let plugins = company.ask(Method::GET, "/plugins", Value::Null).await.ok();
        let path = format!("/plugins/{}?{query}", text(&plugins["items"][0]["id"]));
        company.ask(Method::DELETE, &path, Value::Null).await.ok();
    };
    let left = async |table: &str| {
        let query = format!("select count(*)::text from {table}");
        company.read(&query).await
    };
    // With its client, which the sweep has a copy of. One sign-in is asked for, one ended, one is in use.
    company.signed_in().await;
    company.signed_in().await;
    let refresh_token = held(&company).await;
    company.begin().await;
    remove("credentials=delete").await;
    assert_eq!(left("skill_credentials").await, "0");
    company.sweep().await;
    assert_eq!(provider.asked("revoked").await, 1);
    assert_eq!(
        provider.refresh(&refresh_token).await,
        StatusCode::BAD_REQUEST
    );
    let grants = "select string_agg(distinct status || ':' || (sealed is null)::text, ',') from oauth_grants";
    assert_eq!(company.read(grants).await, "ended:true");

    // With all that was set, and while a code is exchanged.
    company.ground.install("gmail", &company.key).await;
    let registration = company.registration(&provider.issuer, &[provider.host()]);
    let registered = company.ask(Method::PUT, "/skill-creds/oauth/client", registration);
    registered.await.ok();
    company.signed_in().await;
    let begun = company.begin().await;
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    provider.trouble(0, 1500).await;
    let (page, ()) = tokio::join!(company.come_back(&back), async {
        until_status(&company, "exchanging").await;
        remove("credentials=delete&configuration=delete").await;
    });
    provider.trouble(0, 0).await;
    assert!(page.html.contains("was removed"), "{}", page.html);
    for table in ["skill_credentials", "skill_configs", "oauth_clients"] {
        assert_eq!(left(table).await, "0", "{table}");
    }
    company.sweep().await;
    assert_eq!(provider.asked("revoked").await, 3, "both are revoked");
    assert_eq!(company.read(grants).await, "ended:true");
}

/// Who wrote it may have named where codes, tokens and the client's secret go.
async fn what_a_revoked_plugin_asked_for_goes_nowhere(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    company.signed_in().await;
    let (to_confirm, to_come_back) = (company.begin().await, company.begin().await);
    let back = sign_in(&to_confirm.url).await.expect("a browser");
    let page = company.come_back(&back).await;
    let back = sign_in(&to_come_back.url).await.expect("a browser");
    let asked = provider.asked("token").await;

    let watching = tokio::spawn(revocations::watch(company.ground.app.clone()));
    company
        .sql("insert into plugin_revocations (id, digest, reason, revoked_by) select gen_random_uuid(), digest, 'it steals', 'an operator' from plugin_components")
        .await;
    let digest = company.read("select digest from plugin_components").await;
    let revoked = company.ground.app.revocations();
    crate::ground::until("it is known", async || revoked.is_revoked(&digest)).await;

    let late = company.come_back(&back).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    assert!(late.html.contains("it steals"), "{}", late.html);
    let confirmed = company.confirm(&to_confirm.id, &page.code()).await;
    assert_eq!(
        confirmed.status,
        StatusCode::CONFLICT,
        "{:?}",
        confirmed.json
    );
    assert_eq!(confirmed.json["code"], "plugin_revoked");
    // Neither are tokens renewed, nor is a provider told of what is used no more.
    company.all_is_due().await;
    company.sweep().await;
    company.expires_soon(-1).await;
    let first = "select id::text from oauth_grants order by id limit 1";
    let first: GrantId = company.read(first).await.parse().expect("an id");
    let renewed = oauth::renew_for_use(&company.ground.app, company.tenant, first).await;
    assert_eq!(renewed.expect_err("it is not").code(), "plugin_revoked");
    company
        .sql("update oauth_grants set status = 'ending', due_at = now() - interval '1 s' where sealed is not null")
        .await;
    company.sweep().await;
    assert_eq!(provider.asked("token").await, asked);
    assert_eq!(provider.asked("revoked").await, 0);
    watching.abort();
}

async fn until_status(company: &Company, status: &str) {
    crate::ground::until("the status of the sign-in", async || {
        company.status().await == status
    })
    .await;
}

async fn a_sign_in_is_not_forgotten_while_its_code_is_exchanged(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let begun = company.begin().await;
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    // It comes back in the last minute that it has.
    company
        .sql("update oauth_grants set expires_at = now() + interval '60 s', due_at = now() + interval '60 s'")
        .await;
    provider.trouble(0, 1500).await;
    let (page, due) = tokio::join!(company.come_back(&back), async {
        until_status(&company, "exchanging").await;
        company
            .read("select (due_at > now() + interval '5 min')::text from oauth_grants")
            .await
    });
    assert_eq!(page.status, StatusCode::OK, "{}", page.html);
    assert_eq!(
        due, "true",
        "the sweep comes when nobody exchanges any more"
    );
}

async fn a_renewal_that_a_new_sign_in_overtook_keeps_nothing(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    company.signed_in().await;
    let begun = company.begin().await;
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    let page = company.come_back(&back).await;
    let old = "select id::text from oauth_grants where status = 'active'";
    let old: GrantId = company.read(old).await.parse().expect("an id");
    company.expires_soon(30).await;
    company
        .sql("update oauth_grants set expires_at = now() + interval '5 min' where status = 'granted'")
        .await;
    provider.trouble(0, 1500).await;
    let app = &company.ground.app;
    let (renewed, ()) = tokio::join!(oauth::renew_for_use(app, company.tenant, old), async {
        crate::ground::until("the old one is renewed", async || {
            company
                .read("select bool_or(leased_until is not null)::text from oauth_grants")
                .await
                == "true"
        })
        .await;
        company.confirm(&begun.id, &page.code()).await.ok();
    });
    renewed.expect_err("it is used no more");
    let kept = format!(
        "select status || ':' || (sealed is null)::text || ':' || (leased_until is null)::text from oauth_grants where id = '{old}'"
    );
    assert_eq!(company.read(&kept).await, "ended:true:true");
    company.token().await;
}

/// What the database says to whoever has the sign-in and then writes the credential, as a renewal does, while another
/// changes the credential by `path`.
async fn who_renews_and_who_revokes_do_not_wait_for_each_other(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let mut watcher = company.ground.database("postgres").await;
    for by_hand in [true, false] {
        let credential = text(&company.signed_in().await["id"]);
        let mut renewing = company.ground.database("postgres").await;
        let grant = company.grant().await;
        // Shorter than PostgreSQL takes to find a deadlock, and to choose whose work is lost.
        let lock = format!(
            "set lock_timeout = '500ms'; begin; select 1 from oauth_grants where id = '{grant}' for update"
        );
        sqlx::raw_sql(AssertSqlSafe(lock))
            .execute(&mut renewing)
            .await
            .expect("the sign-in is locked");
        let path = format!("/skill-creds/{credential}");
        let value = json!({ "skill": "gmail", "key": "access_token", "value": "ya29.another-CANARY-value" });
        let (changed, ()) = tokio::join!(
            async {
                match by_hand {
                    true => company.ask(Method::POST, "/skill-creds", value).await,
                    false => company.ask(Method::DELETE, &path, Value::Null).await,
                }
            },
            async {
                crate::ground::until_waiting(&mut watcher, 1).await;
                let write = format!(
                    "update skill_credentials set version = version + 1 where id = '{credential}'; commit"
                );
                sqlx::raw_sql(AssertSqlSafe(write))
                    .execute(&mut renewing)
                    .await
                    .expect("nobody holds the credential who waits for the sign-in");
            }
        );
        changed.ok();
        assert_eq!(company.status().await, "ending");
    }
}

async fn two_who_store_a_value_at_once_are_both_answered(ground: Ground) {
    let company = Company::found(ground, "127.0.0.1:9").await;
    let value = |value: &str| json!({ "skill": "gmail", "key": "access_token", "value": value });
    let store = |body: Value| company.ask(Method::POST, "/skill-creds", body);
    // Somebody writes the first one down, and has not committed when the second comes.
    let config = company.read("select id::text from skill_configs where skill_name = 'gmail'");
    let new = NewValue {
        config: config.await.parse().expect("an id"),
        key: "access_token",
        kind: "oauth_token",
        value: "ya29.first-CANARY-value",
        expires_at: None,
        grant: None,
    };
    let app = &company.ground.app;
    let mut first = app
        .db()
        .tenant(company.tenant)
        .await
        .expect("a transaction");
    app.vault()
        .keep(&mut first, CredentialId::fresh(), &new)
        .await
        .expect("it is kept");
    let mut watcher = company.ground.database("postgres").await;
    let (second, ()) = tokio::join!(store(value("ya29.second-CANARY-value")), async {
        crate::ground::until_waiting(&mut watcher, 1).await;
        first.commit().await.expect("it is committed");
    });
    assert_eq!(second.ok()["version"], 2);
    assert_eq!(company.token().await, "ya29.second-CANARY-value");
}

async fn what_nobody_confirms_is_revoked(ground: Ground) {
    let provider = Provider::start().await;
    let company = Company::registered(ground, &provider).await;
    let begun = company.begin().await;
    let back = sign_in(&begun.url).await.expect("the browser comes back");
    let code = company.come_back(&back).await.code();
    company.all_is_due().await;
    company
        .sql("update oauth_grants set expires_at = now()")
        .await;
    let late = company.confirm(&begun.id, &code).await;
    assert_eq!(late.status, StatusCode::CONFLICT);
    company.sweep().await;
    assert_eq!(company.status().await, "ended");
    assert_eq!(provider.asked("revoked").await, 1);
}

/// A provider that answers what it likes.
async fn stranger() -> (String, Arc<Mutex<(u16, String)>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let issuer = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(Mutex::new((200, String::new())));
    let (told, name) = (answer.clone(), issuer.clone());
    let metadata = json!({
        "issuer": name, "authorization_endpoint": format!("{name}/a"), "token_endpoint": format!("{name}/t"),
        "code_challenge_methods_supported": ["S256"],
    });
    let describes = move || async move { axum::Json(metadata) };
    let answers = move || async move {
        let (status, body) = told.lock().expect("its answer").clone();
        let status = StatusCode::from_u16(status).expect("a status");
        (status, [(header::LOCATION, "http://127.0.0.1:1/")], body).into_response()
    };
    let router = Router::new()
        .route("/.well-known/oauth-authorization-server", get(describes))
        .route("/t", post(answers));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (issuer, answer)
}

async fn hostile_answers_leave_nothing_behind(ground: Ground) {
    let (issuer, answer) = stranger().await;
    let host = issuer.trim_start_matches("http://").to_owned();
    let company = Company::found(ground, &host).await;
    let registration = company.registration(&issuer, &[host]);
    company
        .ask(Method::PUT, "/skill-creds/oauth/client", registration)
        .await
        .ok();
    let good = json!({ "access_token": "x".repeat(30), "token_type": "Bearer" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let echo =
        |text: &str| json!({ "error": "invalid_client", "error_description": text }).to_string();
    let hex: String = CLIENT_SECRET
        .bytes()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    for (status, body) in [
        (200, "<html>CANARY</html>".to_owned()),
        (200, " ".repeat(100 << 10) + &good.to_string()),
        (200, with("access_token", json!({ "CANARY": [] }))),
        (200, with("access_token", json!("CANARY\r\nx: y"))),
        (200, with("access_token", json!(CLIENT_SECRET))),
        (200, with("access_token", json!("CANARY".repeat(10_000)))),
        (200, with("token_type", json!("CANARY"))),
        (200, with("expires_in", json!("CANARY"))),
        (200, with("refresh_token", json!(true))),
        (302, good.to_string()),
        (400, "CANARY".to_owned()),
        (400, echo(&format!("the secret {CLIENT_SECRET} is wrong"))),
        (401, echo(&hex)),
        (200, echo(CLIENT_SECRET)),
        (500, echo("CANARY")),
    ] {
        let begun = company.begin().await;
        let state = between(&begun.url, "state=");
        *answer.lock().expect("its answer") = (status, body.clone());
        let page = company
            .come_back(&format!("state={state}&code=a-code"))
            .await;
        let shown = &body[..body.len().min(100)];
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{shown}");
        assert!(
            !page.html.contains("CANARY") && !page.html.contains(&hex),
            "{}",
            page.html
        );
        assert_eq!(company.status().await, "ended", "{shown}");
    }
    for secret in [CLIENT_SECRET, "CANARY"] {
        assert!(!company.tables_show(secret).await, "{secret} is in a table");
    }
    let none = company.read("select count(*)::text from oauth_grants where sealed is not null");
    assert_eq!(none.await, "0");
    // And a good one is taken from the same stranger.
    let begun = company.begin().await;
    *answer.lock().expect("its answer") = (200, good.to_string());
    let state = between(&begun.url, "state=");
    let page = company
        .come_back(&format!("state={state}&code=a-code"))
        .await;
    company.confirm(&begun.id, &page.code()).await.ok();
    assert_eq!(company.token().await, "x".repeat(30));
}
