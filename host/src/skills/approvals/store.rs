use crate::{db::TenantTx, id::ApprovalId};
use sqlx::Result;

/// The roles that whoever decides has now.
pub async fn note_roles(tx: &mut TenantTx, id: ApprovalId, roles: &[String]) -> Result<()> {
    sqlx::query!(
        "update approvals set decided_with_roles = $2 where id = $1",
        id.uuid(),
        roles
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The roles of who decided; nothing where that was not written down.
pub async fn noted_roles(tx: &mut TenantTx, id: ApprovalId) -> Result<Option<Vec<String>>> {
    let query = sqlx::query_scalar!(
        "select decided_with_roles from approvals where id = $1",
        id.uuid()
    );
    query.fetch_optional(&mut **tx).await.map(Option::flatten)
}
