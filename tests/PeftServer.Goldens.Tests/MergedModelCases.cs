using PeftServer.Engine.Models;
using PeftServer.Engine.Training;

namespace PeftServer.Goldens.Tests;

/// <summary>Base and adapter written as one model, on every architecture: read again it gives the logits of PEFT's merged model.</summary>
public sealed class MergedModelCases
{
    public static TheoryData<string> Cases => [.. AdapterCases.Cases.Select(row => row.Data).Where(name =>
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        return name.StartsWith("lora__", StringComparison.Ordinal) && golden.Has("logits_merged");
    })];

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Cases))]
    public void Write_BaseAndAdapter_GivesPeftsMergedLogits(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapters", name));
        using var scope = NewDisposeScope();
        var parent = Directory.CreateTempSubdirectory("peftserver-merged-").FullName;
        try
        {
            var folder = Path.Combine(parent, "model");
            MergedModel.OfAdapter(
                GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), Path.Combine(golden.Folder, "trained"), folder, ScalarType.Float32, 30_000);

            using var model = PretrainedModel.Load(folder, CPU, ScalarType.Float32);

            CausalCase.Of(golden, model).CheckForward("logits_merged", [], 1e-3);
        }
        finally
        {
            Directory.Delete(parent, recursive: true);
        }
    }
}
