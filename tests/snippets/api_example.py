from samdec_export import api

exported = api.export("sam_b.pt", out="artifacts")
half = api.convert(exported.artifact.path, "fp16", "sam_b.pt")
golden = api.record(exported.artifact.path, "sam_b.pt", out="golden.npz")

deployed = api.validate(half.artifact.path, golden=golden.path)  # needs neither torch nor the checkpoint
for result in deployed.results:
    print(result.candidate, "passed" if result.passed else "failed", len(result.cases), "cases")
deployed.require()  # raises ValidationError, which names the worst case, unless everything passed
