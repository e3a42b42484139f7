//! The running command, as event triggers see it.

use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// The table from which ALTER TABLE … DETACH PARTITION … CONCURRENTLY is about to take a partition,
/// when that is the command an event trigger was called for: its schema, if the command gives one,
/// and its name. What the name means depends on the session's search_path, which is not the one an
/// event trigger's function runs with.
pub fn concurrent_detach(call: pg_sys::FunctionCallInfo) -> Option<(Option<String>, String)> {
    // SAFETY: the context of an event trigger's call is an EventTriggerData; each node is looked at
    // as what its tag says it is.
    unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            return None;
        }
        let command = (*context.cast::<pg_sys::EventTriggerData>()).parsetree;
        if command.is_null() || (*command).type_ != pg_sys::NodeTag::T_AlterTableStmt {
            return None;
        }
        let command = command.cast::<pg_sys::AlterTableStmt>();
        let parts = (*command).cmds;
        let count = if parts.is_null() { 0 } else { (*parts).length };
        let cells = (0..usize::try_from(count).unwrap_or_default())
            .map(|cell| (*(*parts).elements.add(cell)).ptr_value);
        let is_one = cells.map(|cell| cell.cast::<pg_sys::AlterTableCmd>()).any(|part| {
            (*part).subtype == pg_sys::AlterTableType::AT_DetachPartition
                && (*(*part).def.cast::<pg_sys::PartitionCmd>()).concurrent
        });
        if !is_one {
            return None;
        }
        let table = (*command).relation;
        let text = |name: *mut c_char| {
            (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
        };
        Some((text((*table).schemaname), text((*table).relname)?))
    }
}
