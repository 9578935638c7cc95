using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.MultitaskPromptTuning;
using PeftServer.Engine.Adapters.WaveFt;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Prompts that start from other prompts, and the wavelets, against PEFT.</summary>
public sealed class MethodStartCases
{
    public static TheoryData<string> Starts =>
        [.. GoldenFolder.Cases("adapters_extra", "meta.json").Where(name => name is "multitask_average" or "multitask_exact" or "multitask_shared")];

    public static TheoryData<string> Families => !GoldenFolder.Takes("adapters_extra", "wavelets") || !Directory.Exists(GoldenFolder.PathOf("adapters_extra", "wavelets")) ? [] : [.. Wavelets.Names];

    /// <summary>The prompt that the cases started from is drawn again: their script says how.</summary>
    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Starts))]
    public void Initialize_FromAnotherPrompt_StartsAsInPeft(string name)
    {
        using var scope = NewDisposeScope();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", name));
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        using var draws = new Generator(5);
        var folder = Directory.CreateTempSubdirectory("peftserver-source-").FullName;
        var file = Path.Combine(folder, "source.safetensors");
        SafetensorsWriter.Write(file, new Dictionary<string, Tensor>
        {
            ["prompt_embeddings"] = randn(4, 32, generator: draws),
            ["prefix_task_cols"] = randn(3, 4, 1, generator: draws),
            ["prefix_task_rows"] = randn(3, 1, 32, generator: draws),
        });
        var config = (MultitaskPromptTuningConfig)AdapterFile.ReadConfig(Path.Combine(golden.Folder, "init")) with { InferenceMode = false, PromptTuningInitStateDictPath = file };
        config.Faults().ShouldBeEmpty();
        using var adapter = config.CreateAdapter(model);

        adapter.Initialize(1);

        Directory.Delete(folder, recursive: true);
        using var theirs = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", AdapterFile.WeightsName));
        foreach (var (key, weight) in adapter.State.Where(entry => name != "multitask_shared" || entry.Key == "prompt_embeddings"))
        {
            Golden.ShouldAgree(key, weight.Value, theirs.Tensor(key), 1e-6);
        }
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Families))]
    public void Merge_WaveFtOfEveryFamily_GivesPeftsUpdate(string family)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var golden = new Golden(GoldenFolder.PathOf("adapters_extra", "wavelets"), "causal");
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        using var adapter = new WaveFtConfig { NFrequency = 200, WaveletFamily = family, TargetModules = ModuleSelector.Of("model.layers.0.self_attn.k_proj") }.CreateAdapter(model);
        adapter.Initialize(1);
        adapter.State.Single().Weight.Set(golden["spectrum"].clone());
        var (site, part) = adapter.Parts.Single();

        Golden.ShouldAgree(family, part.Merge(site, zeros_like(site.Weight.Value)), golden[$"delta.{family}"], 1e-5);
    }
}
