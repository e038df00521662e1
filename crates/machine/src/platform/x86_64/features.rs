//! Translates the config's `cpus.features` into a policy.

use vmm_arch::cpuid::{FeaturePolicy, FeaturePolicyError};
use vmm_arch::topology::Topology;
use vmm_config::{CpuFeatures, hint};

use crate::Error;

/// The policy for `requested`.
///
/// # Errors
/// A name is unknown, or a removed feature is required by the machine.
pub(crate) fn policy(requested: &CpuFeatures, topology: Topology) -> Result<FeaturePolicy, Error> {
    let refused = |field, problem| Error::CpuFeatures { field, problem };
    let policy = FeaturePolicy::parse(requested.words())
        .map_err(|(index, error)| refused(requested.field(index), described(&error)))?;
    if topology.needs_x2apic() && policy.removes("x2apic") {
        let problem = format!(
            "x2apic can't be removed: the APIC ids of so many processors go up to {}; ask for fewer",
            topology.last_apic_id()
        );
        return Err(refused("cpus.features".to_owned(), problem));
    }
    Ok(policy)
}

/// The error, with suggestions for an unknown name.
fn described(error: &FeaturePolicyError) -> String {
    let hint = match error {
        FeaturePolicyError::UnknownBaseline(name) => {
            let is_feature = FeaturePolicy::feature_names().contains(&&name[..]);
            if is_feature {
                format!("write +{name} or -{name} for the feature")
            } else {
                hint(name, &FeaturePolicy::baseline_names())
            }
        }
        FeaturePolicyError::UnknownFeature(name) => {
            // Listing all of them would be too long.
            let near = hint(name, &FeaturePolicy::feature_names());
            let is_near = near.starts_with("did");
            if is_near {
                near
            } else {
                "write a name of /proc/cpuinfo or of QEMU, such as \"aes\"".to_owned()
            }
        }
        other => return other.to_string(),
    };
    format!("{error}, {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str, topology: Topology) -> String {
        policy(&serde_json::from_str(json).unwrap(), topology).unwrap_err().to_string()
    }

    #[test]
    fn features_unknown_name_the_nearest() {
        let one = Topology::one_socket(1);
        let message = r#"cpus.features[1]: unknown CPU feature "avx3", did you mean "avx"?"#;
        assert_eq!(refusal(r#"["host", "+avx3"]"#, one), message);
        let message = r#"cpus.features: unknown CPU baseline "x86-64-v9", did you mean "x86-64-v1"?"#;
        assert_eq!(refusal(r#""x86-64-v9""#, one), message);
        let message = r#"cpus.features: unknown CPU baseline "EPYC", expected one of "host", "x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4""#;
        assert_eq!(refusal(r#""EPYC""#, one), message);
        let message = r#"cpus.features: unknown CPU baseline "aes", write +aes or -aes for the feature"#;
        assert_eq!(refusal(r#""aes""#, one), message);
        let message = r#"cpus.features: unknown CPU feature "warp-drive", write a name of /proc/cpuinfo or of QEMU, such as "aes""#;
        assert_eq!(refusal(r#""+warp-drive""#, one), message);
    }

    #[test]
    fn features_that_so_many_processors_need_cant_be_removed() {
        let message = "cpus.features: x2apic can't be removed: the APIC ids of so many processors go up to 299; ask for fewer";
        assert_eq!(refusal(r#"["-x2apic"]"#, Topology::one_socket(300)), message);
        assert!(policy(&serde_json::from_str(r#""-x2apic""#).unwrap(), Topology::one_socket(2)).is_ok());
    }
}
