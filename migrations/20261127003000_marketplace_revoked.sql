-- Whether a release is not run any more: itself, its component or the key that signed it was revoked. One place, for
-- all who choose among releases.
create function is_revoked(of_digest text, of_release uuid, by_key uuid) returns boolean language sql stable as $$
    select exists (select from plugin_revocations x
                   where x.digest = of_digest and (x.release_id is null or x.release_id = of_release))
        or exists (select from publisher_keys k where k.id = by_key and k.revoked_at is not null)
$$;
