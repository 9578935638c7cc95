using System.Text.Json;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>Optimizers against torch, transformers, bitsandbytes and PEFT: five steps with given gradients; clipping; what decays.</summary>
public sealed class OptimizerCases
{
    public static TheoryData<string> Cases => [.. GoldenFolder.Cases(Path.Combine("objectives", "optimizers"), "golden.safetensors").Where(name => name != "clipping")];

    public static TheoryData<string> DecayCases => GoldenFolder.Takes("objectives/optimizers", "decay_groups") ? ["llama", "qwen2", "bert_cls", "gpt2"] : [];

    public static TheoryData<double> Limits => GoldenFolder.Takes("objectives/optimizers", "clipping") ? [0.5, 1, 100] : [];

    [Theory]
    [MemberData(nameof(Cases))]
    public void Optimizer_FiveSteps_GivesTheLibrarysWeights(string name)
    {
        using var golden = new Golden(GoldenFolder.PathOf("objectives", "optimizers", name));
        using var scope = NewDisposeScope();
        var weights = Weights(golden);
        var trained = weights.Values.Where(weight => golden.Has($"grad0.{weight.Path}")).ToList();
        trained.ForEach(weight => weight.Value.requires_grad = true);
        var rate = golden.Meta.GetProperty("param_groups")[0].GetProperty("lr");
        using var optimizer = Create(golden, name, weights, trained);

        for (var step = 0; step < golden.Meta.GetProperty("steps").GetInt32(); step++)
        {
            optimizer.ZeroGrad();
            trained.ForEach(weight => weight.Value.grad!.copy_(golden[$"grad{step}.{weight.Path}"]));
            optimizer.Step(rate.ValueKind is JsonValueKind.Null ? 0 : rate.GetDouble());
            foreach (var weight in trained)
            {
                Check(golden, name, step, weight);
            }
        }

        weights.Values.ToList().ForEach(weight => weight.Unload());
    }

    [Theory]
    [MemberData(nameof(Limits))]
    public void ClipGradients_AboveTheLimit_GivesTorchsGradients(double limit)
    {
        using var golden = new Golden(GoldenFolder.PathOf("objectives", "optimizers", "clipping"));
        using var scope = NewDisposeScope();
        var weights = golden.Names.Where(name => name.StartsWith("grad.", StringComparison.Ordinal)).Select(name => name["grad.".Length..])
            .Select(name => Weight(name, zeros(golden[$"grad.{name}"].shape))).ToList();
        weights.ForEach(weight => weight.Value.requires_grad = true);
        using var optimizer = new Sgd([new ParameterGroup(weights, 1, 0)]);
        weights.ForEach(weight => weight.Value.grad!.copy_(golden[$"grad.{weight.Path}"]));

        var norm = optimizer.ClipGradients(limit);

        Golden.ShouldAgree("norm", norm.unsqueeze(0), golden["norm"], 1e-6);
        weights.ForEach(weight => Golden.ShouldAgree(weight.Path, weight.Value.grad!, golden[FormattableString.Invariant($"max{limit}.{weight.Path}")], 1e-6));
    }

    [Theory]
    [MemberData(nameof(DecayCases))]
    public void ByDecay_NamesOfAModel_DecaysWhatTransformersDoes(string model)
    {
        var file = File.ReadAllBytes(GoldenFolder.PathOf("objectives", "optimizers", "decay_groups.json"));
        var groups = JsonDocument.Parse(file).RootElement.GetProperty("models").GetProperty(model);
        foreach (var (group, decays) in new[] { ("decayed", true), ("not_decayed", false) })
        {
            groups.GetProperty(group).EnumerateArray().Select(each => each.GetString()!).Where(path => ParameterGroups.Decays(path) != decays).ShouldBeEmpty(group);
        }
    }

    private static Dictionary<string, Weight> Weights(Golden golden) => golden.Names
        .Where(name => name.StartsWith("init.", StringComparison.Ordinal))
        .Select(name => Weight(name["init.".Length..], golden[name].clone()))
        .ToDictionary(weight => weight.Path);

    private static Weight Weight(string path, Tensor value)
    {
        var weight = new Weight(value.shape) { Path = path };
        weight.Set(value);
        return weight;
    }

    /// <summary>
    /// Torch runs Muon's iteration, and PEFT LoRA-FA's product, in bfloat16: ours are float32, and may be as far from theirs as bfloat16 is.
    /// </summary>
    private static void Check(Golden golden, string name, int step, Weight weight)
    {
        var expected = golden[$"step{step}.{weight.Path}"];
        if (name is not ("muon" or "lorafa_bfloat16"))
        {
            Golden.ShouldAgree($"{weight.Path} after step {step}", weight.Value.detach(), expected, 1e-5);
            return;
        }

        var before = golden[step == 0 ? $"init.{weight.Path}" : $"step{step - 1}.{weight.Path}"];
        var size = Engine.Native.TensorArithmetic.Minus(expected, before).abs().max().item<float>();
        var distance = Engine.Native.TensorArithmetic.Minus(weight.Value.detach(), expected).abs().max().item<float>();
        distance.ShouldBeLessThan(4e-2f * size, $"{weight.Path} after step {step}");
        using var frozen = no_grad();
        weight.Value.copy_(expected); // each step is judged by itself: rounding of those before is not this one's
    }

    private static Optimizer Create(Golden golden, string name, Dictionary<string, Weight> weights, List<Weight> trained)
    {
        var first = golden.Meta.GetProperty("param_groups")[0];
        double Number(string key, double otherwise = 0) => first.TryGetProperty(key, out var value) && value.ValueKind is JsonValueKind.Number ? value.GetDouble() : otherwise;
        bool Flag(string key) => first.TryGetProperty(key, out var value) && value.GetBoolean();
        double Beta(int i) => first.GetProperty("betas")[i].GetDouble();
        ParameterGroup[] groups = [new(trained, 1, Number("weight_decay"))];
        return name switch
        {
            "adamw" or "adamw_amsgrad" => new AdamW(groups, Beta(0), Beta(1), Number("eps"), Flag("amsgrad")),
            "adam_l2" => new AdamW(groups, Beta(0), Beta(1), Number("eps"), decaysGradient: true),
            "adagrad" => new Adagrad(groups, Number("eps")),
            "lion" => new Lion(groups, Beta(0), Beta(1)),
            "loraplus" => new AdamW(LoraPlus(golden, weights), Beta(0), Beta(1), Number("eps")),
            "lorafa" or "lorafa_bfloat16" => new LoraFa(groups, Pairs(golden, weights), Beta(0), Beta(1), Number("eps")),
            "riemannian" => new RiemannianAdamW(groups, Pairs(golden, weights), Beta(0), Beta(1), Number("eps"), golden.Meta.GetProperty("settings").GetProperty("reg").GetDouble()),
            _ when name.StartsWith("sgd", StringComparison.Ordinal) => new Sgd(groups, Number("momentum"), Number("dampening"), Flag("nesterov")),
            _ when name.StartsWith("rmsprop", StringComparison.Ordinal) => new RmsProp(groups, Number("alpha"), Number("eps"), Number("momentum"), Flag("centered")),
            _ when name.StartsWith("muon", StringComparison.Ordinal) => new Muon(groups, Number("momentum"), Flag("nesterov"), first.GetProperty("adjust_lr_fn").ValueKind is JsonValueKind.String),
            _ when name.StartsWith("adafactor", StringComparison.Ordinal) => new Adafactor(groups, new AdafactorSettings
            {
                ClipThreshold = Number("clip_threshold"),
                DecayRate = Number("decay_rate"),
                Beta1 = first.GetProperty("beta1").ValueKind is JsonValueKind.Number ? Number("beta1") : null,
                ScaleParameter = Flag("scale_parameter"),
                RelativeStep = Flag("relative_step"),
                WarmupInit = Flag("warmup_init"),
            }),
            _ => throw new NotSupportedException($"The optimizer '{name}' is not supported yet."),
        };
    }

    /// <summary>Our groups, which must be PEFT's: the same names at the same rates and decays.</summary>
    private static IReadOnlyList<ParameterGroup> LoraPlus(Golden golden, Dictionary<string, Weight> weights)
    {
        var settings = golden.Meta.GetProperty("settings");
        double Setting(string name) => settings.GetProperty(name).GetDouble();
        var groups = ParameterGroups.LoraPlus(
            weights.Values, Setting("loraplus_lr_ratio"), Setting("loraplus_lr_embedding") / Setting("lr"), Setting("loraplus_weight_decay"));
        var expected = golden.Meta.GetProperty("param_groups").EnumerateArray().ToList();
        groups.Count.ShouldBe(expected.Count);
        foreach (var (ours, theirs) in groups.Zip(expected))
        {
            ours.Weights.Select(weight => weight.Path).Order().ShouldBe(theirs.GetProperty("params").EnumerateArray().Select(each => each.GetString()!).Order());
            ours.WeightDecay.ShouldBe(theirs.GetProperty("weight_decay").GetDouble());
            (ours.LearningRateScale * Setting("lr")).ShouldBe(theirs.GetProperty("lr").GetDouble(), 1e-12);
        }

        return groups;
    }

    private static IEnumerable<LoraPair> Pairs(Golden golden, Dictionary<string, Weight> weights) =>
        weights.Values.Where(weight => weight.Path.Contains("lora_B", StringComparison.Ordinal)).Select(b => new LoraPair(
            weights[b.Path.Replace("lora_B", "lora_A", StringComparison.Ordinal)], b,
            golden.Meta.TryGetProperty("scaling", out var scaling) ? scaling.GetProperty(b.Path).GetDouble() : 2));
}
