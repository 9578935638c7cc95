using System.Text.RegularExpressions;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// X-LoRA against PEFT. PEFT drops from a file what is named like another expert ("0", "1"), and strips an expert's own number from names: of the
/// classifier the file has <c>layers.2</c> alone, <c>layers.0</c> is in the folder of expert 0, and the experts are whole only where they came from.
/// </summary>
public sealed class XloraCase
{
    private const string First = "base_model.internal_xlora_classifier.layers.0.";

    public static TheoryData<string, string> Cases
    {
        get
        {
            var cases = new TheoryData<string, string>();
            foreach (var kind in (string[])["adapters", "adapters_extra"])
            {
                GoldenFolder.Cases(kind, "meta.json").Where(name => name.StartsWith("xlora", StringComparison.Ordinal)).ToList().ForEach(name => cases.Add(kind, name));
            }

            return cases;
        }
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Cases))]
    public void Adapter_DrawTrainGenerate_GivesPeftsNumbers(string kind, string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);
        var experts = CopyExperts();
        using var adapter = ((XloraConfig)AdapterFile.ReadConfig(Path.Combine(golden.Folder, "init")) with { ExpertFolder = experts }).CreateAdapter(model);
        adapter.Initialize(1);
        Directory.Delete(experts, recursive: true);
        SetInitial(golden, adapter);
        var causal = CausalCase.Of(golden, model);

        adapter.TrainableCount.ShouldBe(golden.Meta.GetProperty("trainable").GetInt64());
        adapter.TotalCount.ShouldBe(golden.Meta.GetProperty("total").GetInt64());
        causal.CheckForward("logits_init", [adapter]);
        AdapterCases.Train(golden, adapter, golden.Meta.GetProperty("lr").GetDouble(), () => causal.TrainingLoss([adapter]), checkGradients: CheckGradients);
        causal.CheckForward("logits_trained", [adapter], 1e-3);
        causal.CheckGreedy([adapter]);
        CheckSaved(golden, adapter, model);
    }

    [Theory(SkipTestWithoutData = true)]
    [InlineData("adapters", "xlora")]
    public void Load_PeftsFile_SaysWhatPeftLeftOut(string kind, string name)
    {
        Assert.SkipUnless(GoldenFolder.Takes(kind, name) && Directory.Exists(GoldenFolder.PathOf(kind, name)), "The case is not among those of this run.");
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "llama"), CPU, ScalarType.Float32);

        var fault = Should.Throw<CheckpointException>(() => AdapterFile.Load(GoldenFolder.PathOf(kind, name, "trained"), model));

        fault.Message.ShouldContain($"{First}weight");
    }

    /// <summary>PEFT's live names of what an expert trains carry its number after lora_A and lora_B.</summary>
    private static void CheckGradients(Golden golden, Adapter adapter)
    {
        var weights = adapter.TrainingState.ToDictionary(entry => entry.Key, entry => entry.Weight);
        var names = golden.Names.Where(name => name.StartsWith("grad.", StringComparison.Ordinal)).ToList();
        names.Count.ShouldBe(adapter.Trainable.Count());
        foreach (var name in names)
        {
            var expert = Regex.Match(name, @"^grad\.base_model\.lora_model\.model\.(.+\.lora_[AB])\.(\d+)\.weight$");
            var key = expert.Success ? $"experts.{expert.Groups[2].Value}.{Adapter.Prefix}{expert.Groups[1].Value}.weight" : name["grad.".Length..];
            Golden.ShouldAgree(name, weights[key].Value.grad!, golden[name], 1e-3);
        }
    }

    private static string CopyExperts()
    {
        var folder = Directory.CreateTempSubdirectory("peftserver-experts-").FullName;
        foreach (var (number, name) in new[] { ("0", "lora_random_init"), ("1", "lora__llama") })
        {
            Directory.CreateDirectory(Path.Combine(folder, number));
            foreach (var file in Directory.GetFiles(GoldenFolder.PathOf("adapters", name, "trained")))
            {
                File.Copy(file, Path.Combine(folder, number, Path.GetFileName(file)));
            }
        }

        return folder;
    }

    private static void SetInitial(Golden golden, Adapter adapter)
    {
        using var file = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", AdapterFile.WeightsName));
        using var first = SafetensorsFile.Open(Path.Combine(golden.Folder, "init", "0", AdapterFile.WeightsName));
        foreach (var (key, weight) in adapter.State)
        {
            weight.Set(key.StartsWith(First, StringComparison.Ordinal) ? first.Tensor(key.Replace(".0.", ".", StringComparison.Ordinal)).clone() : file.Tensor(key).clone());
        }
    }

    private static void CheckSaved(Golden golden, Adapter adapter, PretrainedModel model)
    {
        var folder = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;
        try
        {
            AdapterFile.Save(adapter, folder, "llama");
            var trained = Path.Combine(golden.Folder, "trained");
            AdapterCases.CheckConfig(Path.Combine(folder, AdapterFile.ConfigName), Path.Combine(trained, AdapterFile.ConfigName));
            using var ours = SafetensorsFile.Open(Path.Combine(folder, AdapterFile.WeightsName));
            using var theirs = SafetensorsFile.Open(Path.Combine(trained, AdapterFile.WeightsName));
            ours.Header.Entries.Keys.Where(key => !key.StartsWith(First, StringComparison.Ordinal)).Order().ShouldBe(theirs.Header.Entries.Keys.Order());
            theirs.Header.Entries.Keys.ToList().ForEach(key => Golden.ShouldAgree(key, ours.Tensor(key), theirs.Tensor(key), 1e-3));
            using var loaded = AdapterFile.Load(folder, model);
            CausalCase.Of(golden, model).CheckForward("logits_trained", [loaded], 1e-3);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }
}
