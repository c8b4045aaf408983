//! The JSON of AIE_PARTITION: that of mlir-aie's compiler and of `xclbinutil`. Images stand in files of their own,
//! which the JSON names; here the caller reads and writes them.

use std::{borrow::Cow, collections::BTreeSet};

use super::{AiePartition, CdoGroup, CdoType, Pdi};
use crate::{
    axlf::Uuid,
    error::{Error, Result},
    section::json::{At, Tree},
};

impl<'a> AiePartition<'a> {
    /// Reads JSON with the member `aie_partition`. `name` is the partition's index in the container, mostly empty
    /// (the JSON's own is not read, as `xclbinutil` does not); `image` answers a file name with its bytes.
    ///
    /// # Errors
    /// A member that is missing, makes no sense or is too wide for its field; those of `image`.
    pub fn from_json<E: From<Error>>(
        json: &Tree,
        name: &'a str,
        mut image: impl FnMut(&str) -> std::result::Result<Cow<'a, [u8]>, E>,
    ) -> std::result::Result<AiePartition<'a>, E> {
        let root = At::root(json);
        let partition = root.get("aie_partition")?;
        let info = partition.get("partition")?;
        let list = partition.get("PDIs")?;
        let mut pdis = Vec::new();
        for pdi in list.items() {
            let file = pdi.get("file_name")?;
            let groups = pdi.get("cdo_groups")?;
            pdis.push(Pdi {
                uuid: uuid_from(&pdi.get("uuid")?)?,
                image: image(not_empty(&file)?)?,
                groups: required(&groups, groups.items().map(group).collect::<Result<_>>()?)?,
            });
        }
        let columns = info.get("start_columns")?;
        let start_columns = columns.items().map(|column| column.decimal()).collect::<Result<_>>()?;
        Ok(AiePartition {
            schema_version: 0,
            name: Cow::Borrowed(name),
            operations_per_cycle: or_zero(&partition, "operations_per_cycle")?,
            inference_fingerprint: or_zero(&partition, "inference_fingerprint")?,
            pre_post_fingerprint: or_zero(&partition, "pre_post_fingerprint")?,
            kernel_commit_id: Some(Cow::Owned(or_empty(&partition, "kernel_commit_id")?.to_owned())),
            column_width: column_width(&info.get("column_width")?)?,
            start_columns: required(&columns, start_columns)?,
            pdis: required(&list, pdis)?,
        })
    }

    /// The same JSON back, without the outermost member. `files`: the name of each image's file, as of
    /// [`AiePartition::file_names`].
    pub fn to_json(&self, files: &[String]) -> Tree {
        let numbers = |ids: &[u64]| Tree::array(ids.iter().map(|id| Tree::from(format!("{id:#x}"))));
        let group = |group: &CdoGroup<'_>| {
            let mut json = Tree::default().with("name", group.name.as_ref());
            if group.kind != CdoType::default() {
                json.push("type", group.kind.name());
            }
            json.push("pdi_id", format!("{:#x}", group.pdi_id));
            let lists = [("dpu_kernel_ids", &group.kernel_ids), ("pre_cdo_groups", &group.pre_cdo_groups)];
            for (key, ids) in lists.into_iter().filter(|(_, ids)| !ids.is_empty()) {
                json.push(key, numbers(ids));
            }
            json
        };
        let pdi = |(pdi, file): (&Pdi<'_>, &String)| {
            Tree::default()
                .with("uuid", pdi.uuid.to_string())
                .with("file_name", file.as_str())
                .with("cdo_groups", Tree::array(pdi.groups.iter().map(group)))
        };
        let columns = Tree::array(self.start_columns.iter().map(|column| Tree::from(column.to_string())));
        let info = Tree::default().with("column_width", self.column_width.to_string()).with("start_columns", columns);
        Tree::default()
            .with("name", self.name.as_ref())
            .with("operations_per_cycle", self.operations_per_cycle.to_string())
            .with("inference_fingerprint", self.inference_fingerprint.to_string())
            .with("pre_post_fingerprint", self.pre_post_fingerprint.to_string())
            .with("kernel_commit_id", self.kernel_commit_id.as_deref().unwrap_or_default())
            .with("partition", info)
            .with("PDIs", Tree::array(self.pdis.iter().zip(files).map(pdi)))
    }

    /// A file name per image: its uuid with `.pdi`, as `xclbinutil` has it, and where several images share a uuid
    /// the index before it, because there `xclbinutil` writes one over the other.
    pub fn file_names(&self) -> Vec<String> {
        let mut taken = BTreeSet::new();
        let name = |(index, pdi): (usize, &Pdi<'_>)| {
            if taken.insert(pdi.uuid) { format!("{}.pdi", pdi.uuid) } else { format!("{}-{index}.pdi", pdi.uuid) }
        };
        self.pdis.iter().enumerate().map(name).collect()
    }
}

fn group(json: At<'_>) -> Result<CdoGroup<'static>> {
    let ids = |key| -> Result<Vec<u64>> {
        let list = json.find(key);
        list.map_or(Ok(Vec::new()), |list| list.items().map(|id| id.number()).collect())
    };
    Ok(CdoGroup {
        name: Cow::Owned(or_empty(&json, "name")?.to_owned()),
        kind: CdoType::from_name(or_empty(&json, "type")?),
        pdi_id: json.get("pdi_id")?.number()?,
        kernel_ids: ids("dpu_kernel_ids")?,
        pre_cdo_groups: ids("pre_cdo_groups")?,
    })
}

fn or_zero<T: std::str::FromStr + Default>(json: &At<'_>, key: &str) -> Result<T> {
    json.find(key).map_or(Ok(T::default()), |at| at.decimal())
}

fn or_empty<'t>(json: &At<'t>, key: &str) -> Result<&'t str> {
    json.tree.get(key).map_or(Ok(""), |tree| match tree.children.is_empty() {
        true => Ok(&tree.text),
        false => Err(json.error(format!("{key:?}"), "a text is expected")),
    })
}

fn not_empty<'t>(at: &At<'t>) -> Result<&'t str> {
    match at.text()? {
        "" => Err(at.error("\"\"", "a file name is expected")),
        name => Ok(name),
    }
}

fn required<T>(at: &At<'_>, list: Vec<T>) -> Result<Vec<T>> {
    if list.is_empty() { Err(at.error("an empty list", "at least one entry is required")) } else { Ok(list) }
}

fn column_width(at: &At<'_>) -> Result<u16> {
    match at.decimal()? {
        0 => Err(at.error(0, "at least one column is required")),
        width => Ok(width),
    }
}

fn uuid_from(at: &At<'_>) -> Result<Uuid> {
    let text = at.text()?;
    Uuid::parse(text).ok_or_else(|| at.error(format!("{text:?}"), "1 to 32 hexadecimal digits are expected"))
}
