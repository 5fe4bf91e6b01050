"""Validators from PyPI, one for each kind of file; each ends with status 1 and says why.

usage: validate.py compose FILE | kubernetes FILE... | sbom FILE
"""

import sys

import yaml


def compose(path):
    import compose_spec

    with open(path) as file:
        # Read and written once, since the validator does not know YAML's merge keys.
        plain = yaml.safe_dump(yaml.safe_load(file))
    services = compose_spec.PyCompose.from_yaml(plain).services
    print("services", len(services))


def kubernetes(*paths):
    import kubernetes_validate

    valid, unknown = 0, []
    for path in paths:
        with open(path) as file:
            for resource in filter(None, yaml.safe_load_all(file)):
                kind = resource["kind"]
                if kind in ("Kustomization", "PodMonitor"):
                    # Not part of Kubernetes itself: no schema there.
                    unknown.append(kind)
                    continue
                kubernetes_validate.validate(resource, "1.37", strict=True)
                valid += 1
    print("valid", valid, "without a schema", ",".join(sorted(unknown)))


def sbom(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with open(path) as file:
        text = file.read()
    version = {"1.3": SchemaVersion.V1_3, "1.4": SchemaVersion.V1_4, "1.5": SchemaVersion.V1_5}
    document = yaml.safe_load(text)
    problem = JsonStrictValidator(version[document["specVersion"]]).validate_str(text)
    if problem:
        sys.exit(str(problem))
    print("components", len(document["components"]))


try:
    {"compose": compose, "kubernetes": kubernetes, "sbom": sbom}[sys.argv[1]](*sys.argv[2:])
except Exception as error:
    sys.exit(f"{sys.argv[2:]}: {type(error).__name__}: {error}")
