using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Single adapters against the adapters library: loading, gradients, training, saving, merging, greedy tokens.</summary>
public sealed class AdapterHubCases
{
    public static TheoryData<string> Cases => [.. GoldenFolder.Cases("adapterhub", "meta.json").Where(name => IsSingle(name))];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Adapter_LoadTrainSave_GivesTheLibrarysNumbers(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapterhub", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        using var adapter = Load(golden, "init", model);
        var one = AdapterHubCase.Of(golden, model, adapter);

        adapter.TrainableCount.ShouldBe(golden.Meta.GetProperty("trainable").GetInt64());
        adapter.TotalCount.ShouldBe(golden.Meta.GetProperty("total").GetInt64());
        one.CheckForward("logits_init", [adapter]);
        if (golden.Has("losses"))
        {
            Train(golden, adapter, () => one.TrainingLoss([adapter]));
            one.CheckForward("logits_trained", [adapter], 1e-3);
        }

        CheckSaved(golden, adapter);
        one.CheckGreedy([adapter]);
    }

    /// <summary>What the library trained and wrote, in each form it wrote it, gives its logits; merged too where merging is exact.</summary>
    [Theory]
    [MemberData(nameof(Cases))]
    public void Adapter_LoadTrained_GivesTheLibrarysLogits(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("adapterhub", name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        if (golden.Has("logits_trained"))
        {
            using var adapter = Load(golden, "trained", model);
            var one = AdapterHubCase.Of(golden, model, adapter);
            one.CheckForward("logits_trained", [adapter]);
            CheckMerged(golden, one, adapter);
        }
    }

    /// <summary>Merging is exact, or refused: where the library's is wrong (it says by how much), and where there is no weight to merge into.</summary>
    private static void CheckMerged(Golden golden, IModelCase one, HubAdapter adapter)
    {
        if (golden.Meta.TryGetProperty("merge_error", out var error) && error.GetDouble() < 1e-4)
        {
            adapter.MergeAndUnload();
            one.CheckForward("logits_trained", []);
            return;
        }

        Should.Throw<NotSupportedException>(adapter.MergeAndUnload).Message.ShouldContain("cannot be merged");
        one.CheckForward("logits_trained", [adapter]);
    }

    /// <summary>The library does not save that a DiReFT is one; the case says it.</summary>
    internal static HubAdapter Load(Golden golden, string part, PretrainedModel model) =>
        golden.Meta.TryGetProperty("config_class", out var kind) && kind.GetString() == "DiReftConfig"
            ? AdapterHubFile.Load(Path.Combine(golden.Folder, part), model, new JsonObject { ["subtract_projection"] = false })
            : (HubAdapter)AdapterFile.Load(Path.Combine(golden.Folder, part), model);

    /// <summary>Trains as the case did: gradients of the first step, losses of all steps.</summary>
    internal static void Train(Golden golden, Adapter adapter, Func<Tensor> forward) => AdapterCases.Train(
        golden, adapter, 5e-3, forward, weightDecay: golden.Meta.TryGetProperty("weight_decay", out var decay) ? decay.GetDouble() : 0.01, checkGradients: CheckGradients);

    private static void CheckGradients(Golden golden, Adapter adapter)
    {
        var names = golden.Names.Where(name => name.StartsWith("grad.", StringComparison.Ordinal)).ToList();
        names.Count.ShouldBe(adapter.Trainable.Count() - (golden.Meta.TryGetProperty("no_grad_names", out var idle) ? idle.GetArrayLength() : 0));
        var weights = adapter.State.ToDictionary(entry => entry.Key, entry => entry.Weight);
        foreach (var name in names)
        {
            // The library lists a norm before the bottleneck under its own name, and saves it under both.
            var key = name["grad.".Length..];
            var weight = weights.GetValueOrDefault(key) ?? weights[key.Replace(".adapter_norm_before.", ".adapter_down.0.", StringComparison.Ordinal)];
            if (golden[name].abs().max().item<float>() < 1e-6)
            {
                weight.Value.grad!.abs().max().item<float>().ShouldBeLessThan(1e-6f); // truly zero: rounding on both sides
                continue;
            }

            Golden.ShouldAgree(name, weight.Value.grad!, golden[name], 1e-3);
        }
    }

    private static void CheckSaved(Golden golden, HubAdapter adapter)
    {
        var theirs = Path.Combine(golden.Folder, golden.Has("losses") ? "trained" : "init");
        var ours = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;
        try
        {
            AdapterFile.Save(adapter, ours, golden.Meta.GetProperty("base").GetString()!);
            CheckReload(golden, adapter, ours);
            CheckJson(ours, theirs, AdapterFile.ConfigName);
            CheckTensors(ours, theirs, AdapterHubFile.WeightsName, AdapterHubFile.OldWeightsName);
            if (golden.Meta.GetProperty("head_saved").GetBoolean())
            {
                CheckJson(ours, theirs, AdapterHubFile.HeadConfigName);
                CheckTensors(ours, theirs, AdapterHubFile.HeadWeightsName, AdapterHubFile.OldHeadWeightsName);
            }
        }
        finally
        {
            Directory.Delete(ours, recursive: true);
        }
    }

    /// <summary>What we save is the adapter again, without being told anything.</summary>
    private static void CheckReload(Golden golden, HubAdapter adapter, string folder)
    {
        using var again = (HubAdapter)AdapterFile.Load(folder, adapter.Model);
        var name = golden.Has("losses") ? "logits_trained" : "logits_init";
        AdapterHubCase.Of(golden, adapter.Model, again).CheckForward(name, [again], 1e-3);
    }

    internal static void CheckTensors(string ours, string theirs, string name, string oldName, Func<string, bool>? isChance = null)
    {
        using var scope = NewDisposeScope();
        var path = Path.Combine(theirs, name);
        var expected = AdapterHubFile.Tensors(theirs, name, oldName);
        expected = expected.Where(entry => !HubKeys.IsRepeated(entry.Key, expected)).ToDictionary();
        var actual = AdapterHubFile.Tensors(ours, name, oldName);
        actual.Keys.Order(StringComparer.Ordinal).ShouldBe(expected.Keys.Order(StringComparer.Ordinal));
        foreach (var (key, tensor) in expected.Where(entry => isChance?.Invoke(entry.Key) is not true))
        {
            Golden.ShouldAgree(key, actual[key], tensor, 1e-3);
        }

        if (File.Exists(path) && expected.Count == SafetensorsHeader.Read(path).Entries.Count)
        {
            SafetensorsWriter.Write(path = Path.Combine(ours, "again"), expected, new Dictionary<string, string>());
            File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(theirs, name))).ShouldBeTrue("the same tensors give another file than the library's");
        }
    }

    internal static void CheckJson(string ours, string theirs, string name) =>
        WithoutAdded(AdapterHubFile.Sorted(JsonNode.Parse(File.ReadAllText(Path.Combine(ours, name)))!.AsObject())).ToJsonString()
            .ShouldBe(AdapterHubFile.Sorted(WithoutId(JsonNode.Parse(File.ReadAllText(Path.Combine(theirs, name)))!.AsObject())).ToJsonString());

    private static JsonObject WithoutAdded(JsonObject config)
    {
        (config["config"] as JsonObject)?.Remove("subtract_projection"); // ours alone, and only where it is false
        return config;
    }

    private static JsonObject WithoutId(JsonObject config)
    {
        config.Remove("config_id"); // a label
        return config;
    }

    private static bool IsSingle(string name) => File.ReadAllText(GoldenFolder.PathOf("adapterhub", name, "meta.json")).Contains("\"adapter\": \"task\"", StringComparison.Ordinal);
}
