using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdaLora;
using PeftServer.Engine.Adapters.C3a;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.Pvera;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Adapters against PEFT: loading, gradients, training, saving, merging, greedy tokens.</summary>
public sealed class AdapterCases
{
    public static TheoryData<string> Cases =>
        [.. GoldenFolder.Cases("adapters", "meta.json").Where(name => name is not ("xlora" or "lora_arrow"))]; // see XloraCase, ArrowCase

    /// <summary>Methods that look at all tokens of a batch together, or draw for each of them, padding included.</summary>
    private static readonly string[] KeepsPadding = ["lora_velora", "lily", "pvera"];

    /// <summary>Options of methods, and methods on other kinds of models, which the cases above leave out: what adapters_extra.py wrote.</summary>
    public static TheoryData<string> MoreCases =>
        [.. GoldenFolder.Cases("adapters_extra", "meta.json").Where(name => name != "arrow_more" && !name.StartsWith("xlora", StringComparison.Ordinal))];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Adapter_LoadTrainSaveMerge_GivesPeftsNumbers(string name) => Check("adapters", name);

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(MoreCases))]
    public void AdapterOfMore_LoadTrainSaveMerge_GivesPeftsNumbers(string name) => Check("adapters_extra", name);

    private static void Check(string kind, string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf(kind, name));
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", golden.Meta.GetProperty("base").GetString()!), CPU, ScalarType.Float32);
        var init = Path.Combine(golden.Folder, "init");
        using var adapter = Initial(init, model);
        var causal = CausalCase.Of(golden, model, keepsPadding: KeepsPadding.Any(method => name.StartsWith(method, StringComparison.Ordinal)));

        adapter.TrainableCount.ShouldBe(golden.Meta.GetProperty("trainable").GetInt64());
        adapter.TotalCount.ShouldBe(golden.Meta.GetProperty("total").GetInt64());
        causal.CheckForward("logits_init", [adapter]);
        if (golden.Names.Any(name => name.StartsWith("init.", StringComparison.Ordinal)))
        {
            SetInitial(golden, adapter);
            causal.CheckForward("logits_init", [adapter]);
        }

        Prescribe(golden, adapter);
        Train(golden, adapter, golden.Meta.GetProperty("lr").GetDouble(), () => causal.TrainingLoss([adapter]) is var loss && adapter.Config is AdaLoraConfig ? loss.Plus(adapter.Regularization()!) : loss);

        CheckSaved(golden, adapter);
        causal.CheckForward("logits_trained", [adapter], 1e-3);
        causal.CheckGreedy([adapter]);
        if (!golden.Meta.GetProperty("merged").GetBoolean())
        {
            return;
        }

        if (Record.Exception(adapter.MergeAndUnload) is { } refused)
        {
            // PEFT merges into one of the modules, or into all of them what each has.
            refused.ShouldBeOfType<NotSupportedException>();
            SharesWeights(adapter).ShouldBeTrue();
            return;
        }

        var faithful = Golden.Error(golden["logits_merged"], golden["logits_trained"]) < 1e-2;
        var draws = adapter.Config is PveraConfig { SampleAtInference: true };
        (faithful || draws || SharesWeights(adapter)).ShouldBeTrue("PEFT's merged model does what its adapter did");
        causal.CheckForward(faithful || draws ? "logits_merged" : "logits_trained", [], 1e-3);
    }

    private static bool SharesWeights(Adapter adapter) => adapter.Config is LoraConfig { LayerReplication: not null }
        || adapter.Parts.Any(entry => adapter.Model.Sites().Count(other => ReferenceEquals(other.Weight, entry.Site.Weight)) > 1);

    /// <summary>A head that trains in full is not counted, trained or saved once more for its bias. The number is PEFT 0.21's.</summary>
    [Fact]
    public void BiasAll_WithAHead_CountsAndLoadsAsPeftDoes()
    {
        Assert.SkipUnless(GoldenFolder.Takes("models", "bert_cls"), "The model is not among those of this run.");
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(GoldenFolder.PathOf("models", "bert_cls"), CPU, ScalarType.Float32);
        using var adapter = new LoraConfig { R = 4, Bias = "all", TaskType = TaskType.SequenceClassification }.CreateAdapter(model);
        adapter.Initialize(1);
        var folder = Directory.CreateTempSubdirectory("peftserver-bias-").FullName;

        AdapterFile.Save(adapter, folder, "bert_cls");
        var file = Path.Combine(folder, AdapterFile.WeightsName);
        var tensors = adapter.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value);
        tensors["base_model.model.classifier.modules_to_save.bias"] = tensors["base_model.model.classifier.bias"].clone(); // as PEFT saves it too
        tensors["base_model.model.classifier.original_module.bias"] = tensors["base_model.model.classifier.bias"].clone();
        SafetensorsWriter.Write(file, tensors);
        using var loaded = AdapterFile.Load(folder, model);

        Directory.Delete(folder, recursive: true);
        adapter.TrainableCount.ShouldBe(1763);
        loaded.State.Count().ShouldBe(adapter.State.Count());
    }

    /// <summary>The adapter as the case begins; C3A with PEFT's own gradient, which no file of PEFT's says.</summary>
    internal static Adapter Initial(string folder, PretrainedModel model)
    {
        var config = AdapterFile.ReadConfig(folder);
        var adapter = (config is C3aConfig c3a ? c3a with { Gradient = C3aGradient.Peft } : config).CreateAdapter(model);
        AdapterFile.Fill(adapter, folder, initialFolder: folder);
        return adapter;
    }

    /// <summary>
    /// Trains as the case did; gradients of the first step and the loss of every step must agree. Each loss is measured by itself,
    /// or by <paramref name="lossSize"/>: an objective may have a step whose loss is zero but for rounding.
    /// <paramref name="checkGradients"/> is for cases that name gradients in a way of their own.
    /// </summary>
    internal static void Train(
        Golden golden, Adapter adapter, double learningRate, Func<Tensor> forward, double? lossSize = null, double weightDecay = 0.01,
        Action<Golden, Adapter>? checkGradients = null)
    {
        adapter.SetTraining(true);
        adapter.BeginTraining((int)golden["losses"].numel());
        var eps = golden.Meta.TryGetProperty("eps", out var given) ? given.GetDouble() : 1e-8;
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, eps, weightDecay);
        using var wide = golden["losses"].to(ScalarType.Float64);
        var losses = wide.data<double>().ToArray();
        for (var step = 0; step < losses.Length; step++)
        {
            using var scope = NewDisposeScope();
            var loss = forward();
            loss.backward();
            if (step == 0)
            {
                (checkGradients ?? CheckGradients)(golden, adapter);
            }

            optimizer.Step(learningRate);
            adapter.AfterStep(step);
            optimizer.ZeroGrad();
            var value = loss.item<float>();
            (Math.Abs(value - losses[step]) <= 1e-4 * (lossSize ?? Math.Abs(losses[step]))).ShouldBeTrue($"loss of step {step}: {value}, the reference {losses[step]}");
        }

        adapter.SetTraining(false);
    }

    /// <summary>What PEFT drew at random in each step, where the case tells.</summary>
    private static void Prescribe(Golden golden, Adapter adapter)
    {
        foreach (var (site, part) in adapter.Parts)
        {
            for (var step = 0; part is MontecloraProjection sampler && golden.Has(Name(step, site, "z_mvn")); step++)
            {
                sampler.Prescribed.Enqueue(new MontecloraDraw(
                    golden[Name(step, site, "z_mvn")], golden[Name(step, site, "z_wishart")].diag(), golden[Name(step, site, "z_dirichlet")]));
            }
        }

        static string Name(int step, Site site, string what) => $"draw.{step}.{Adapter.Prefix}{site.Path}.lora_monteclora_sampler.default.{what}";
    }

    /// <summary>What a prompt method trains is not what it saves: the case holds it beside the file.</summary>
    internal static void SetInitial(Golden golden, Adapter adapter)
    {
        var weights = adapter.TrainingState.ToDictionary(entry => entry.Key, entry => entry.Weight);
        foreach (var name in golden.Names.Where(name => name.StartsWith("init.", StringComparison.Ordinal)))
        {
            weights[SavedName(name["init.".Length..])].Set(golden[name].clone());
        }
    }

    internal static void CheckGradients(Golden golden, Adapter adapter)
    {
        var names = golden.Names.Where(name => name.StartsWith("grad.", StringComparison.Ordinal)).ToList();
        names.ShouldNotBeEmpty();
        var weights = adapter.TrainingState.ToDictionary(entry => entry.Key, entry => entry.Weight);
        foreach (var name in names.Where(name => !HasNoGradient(name)))
        {
            var saved = SavedName(name["grad.".Length..]);

            // PEFT lists what modules share under the first of them; it is saved once, at the root.
            var weight = weights.GetValueOrDefault(saved) ?? weights.GetValueOrDefault(name["grad.".Length..]) ?? weights.First(entry =>
                entry.Key.StartsWith("base_model.", StringComparison.Ordinal) && saved.EndsWith(entry.Key["base_model".Length..], StringComparison.Ordinal)).Value;
            Golden.ShouldAgree(name, WithoutKeys(name, weight.Value.grad!), WithoutKeys(name, golden[name]), 1e-3);
        }
    }

    /// <summary>
    /// What is added to every place of a row before the softmax over places, or to a key: its true gradient
    /// is zero, so its value is rounding that Adam made large.
    /// </summary>
    private static bool HasNoGradient(string name) =>
        name.EndsWith("bias", StringComparison.Ordinal) && (name.Contains("qa_outputs", StringComparison.Ordinal) || name.Contains("attention.self.key", StringComparison.Ordinal));

    /// <summary>The same where one bias is for queries, keys and values: without its middle third.</summary>
    private static Tensor WithoutKeys(string name, Tensor tensor) =>
        name.EndsWith("bias", StringComparison.Ordinal) && name.Contains(".c_attn.", StringComparison.Ordinal)
            ? cat([tensor.narrow(0, 0, tensor.size(0) / 3), tensor.narrow(0, 2 * tensor.size(0) / 3, tensor.size(0) / 3)], 0)
            : tensor;

    /// <summary>PEFT's live names carry the adapter's name; the saved ones do not.</summary>
    private static string SavedName(string live) =>
        live.Replace(".modules_to_save.default", "", StringComparison.Ordinal)
            .Replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector", StringComparison.Ordinal)
            .Replace(".default", "", StringComparison.Ordinal);

    /// <summary>What we save is what the library saved: keys, shapes, types, config, and the same bytes for the same tensors.</summary>
    internal static void CheckSaved(Golden golden, Adapter adapter)
    {
        var folder = Directory.CreateTempSubdirectory("peftserver-golden-").FullName;
        try
        {
            AdapterFile.Save(adapter, folder, golden.Meta.GetProperty("base").GetString()!);
            var trained = Path.Combine(golden.Folder, "trained");
            CheckConfig(Path.Combine(folder, AdapterFile.ConfigName), Path.Combine(trained, AdapterFile.ConfigName));
            using var ours = SafetensorsFile.Open(Path.Combine(folder, AdapterFile.WeightsName));
            using var theirs = SafetensorsFile.Open(Path.Combine(trained, AdapterFile.WeightsName));
            var saved = theirs.Header.Entries.Values.Where(entry => !SavedOnceMore(entry.Name)).ToList();
            ours.Header.Entries.Values.Select(Line).Order().ShouldBe(saved.Select(Line).Order());
            foreach (var key in saved.Select(entry => entry.Name).Where(key => !HasNoGradient(key)))
            {
                Golden.ShouldAgree(key, WithoutKeys(key, ours.Tensor(key)), WithoutKeys(key, theirs.Tensor(key)), 1e-3);
            }

            // The same tensors through our writer are the same bytes.
            var again = Path.Combine(folder, "again.safetensors");
            SafetensorsWriter.Write(again, theirs.Header.Entries.Keys.ToDictionary(key => key, theirs.Tensor));
            File.ReadAllBytes(again).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(trained, AdapterFile.WeightsName)))
                .ShouldBeTrue("our safetensors file of the same tensors differs from PEFT's");
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>With bias "all" PEFT saves a head's bias under the names of its two live copies too, and reads neither.</summary>
    private static bool SavedOnceMore(string key) =>
        key.EndsWith(".modules_to_save.bias", StringComparison.Ordinal) || key.EndsWith(".original_module.bias", StringComparison.Ordinal);

    private static string Line(SafetensorsEntry entry) => $"{entry.Name} {entry.Dtype} [{string.Join(", ", entry.Shape)}]";

    internal static void CheckConfig(string ours, string theirs)
    {
        var (a, b) = (JsonNode.Parse(File.ReadAllText(ours))!.AsObject(), JsonNode.Parse(File.ReadAllText(theirs))!.AsObject());
        a.Select(field => field.Key).ShouldBe(b.Select(field => field.Key).Order(StringComparer.Ordinal));
        foreach (var (key, value) in b)
        {
            // PEFT writes a set in any order, and a whole number as it was given.
            Comparable(a[key]).ShouldBe(Comparable(value), $"adapter_config.json: {key}");
        }
    }

    private static string Comparable(JsonNode? value) => value switch
    {
        JsonArray list => string.Join(",", list.Select(Comparable).Order(StringComparer.Ordinal)),
        JsonObject map => string.Join(",", map.Select(field => $"{field.Key}:{Comparable(field.Value)}").Order(StringComparer.Ordinal)),
        JsonValue number when number.GetValueKind() is System.Text.Json.JsonValueKind.Number => number.GetValue<double>().ToString("R", System.Globalization.CultureInfo.InvariantCulture),
        null => "null",
        _ => value.ToJsonString(),
    };
}
