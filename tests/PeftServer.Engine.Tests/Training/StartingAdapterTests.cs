using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Training;

/// <summary>Runs that go on from an adapter that another run made.</summary>
public sealed class StartingAdapterTests
{
    private static readonly string[] Texts = [.. Enumerable.Range(0, 6).Select(i => $$"""{"prompt": "Number {{i}}: ", "completion": "{{string.Concat(Enumerable.Repeat("word ", i + 1))}}"}""")];

    private static readonly string[] Pairs = [.. Enumerable.Range(0, 6).Select(i => $$"""{"prompt": "Colour {{i}}: ", "chosen": "blue {{i}}", "rejected": "a very long red {{i}}"}""")];

    private static readonly string[] Judged = [.. Enumerable.Range(0, 6).Select(i => $$"""{"prompt": "Colour {{i}}: ", "completion": "blue {{i}}", "label": {{(i % 2 == 0 ? "true" : "false")}}}""")];

    private static readonly string[] Classes = [.. Enumerable.Range(0, 6).Select(i => $$"""{"text": "day {{i}}", "label": "{{(i % 2 == 0 ? "spam" : "ham")}}"}""")];

    /// <summary>What a method needs on the sample model.</summary>
    private static readonly Dictionary<string, string> Needs = new()
    {
        ["C3A"] = """{ "block_size": 64 }""",
        ["CPT"] = """{ "cpt_token_ids": [5, 6, 7, 8], "cpt_tokens_type_mask": [1, 2, 3, 4] }""",
        ["LORA dora"] = """{ "use_dora": true }""",
        ["LORA pissa"] = """{ "init_lora_weights": "pissa" }""",
        ["LORA layers"] = """{ "layer_replication": [[0, 2], [1, 2]] }""",
        ["LORA modules"] = """{ "modules_to_save": ["lm_head"] }""",
        ["TRAINABLE_TOKENS"] = """{ "token_indices": [5, 6] }""",
        ["VBLORA"] = """{ "vector_length": 64 }""",
    };

    public static TheoryData<string> Methods => [.. AdapterConfig.Types.Keys.Union(Needs.Keys).Except(["XLORA", "P_TUNING"])];

    /// <summary>A step of rate 0 changes nothing, so the tensors that were loaded are those that are saved; then they train.</summary>
    [Theory]
    [MemberData(nameof(Methods))]
    public void Run_FromATrainedAdapter_GoesOnFromItsTensors(string method)
    {
        var settings = JsonNode.Parse(Needs.GetValueOrDefault(method, "{}"))!.AsObject();
        settings["peft_type"] = method.Split(' ')[0];
        using var first = new TrainingRun(Texts, change: Short(2), peft: settings.Deserialize<AdapterConfig>(PeftJson.Options));
        first.Run().ShouldBe(TrainingOutcome.Succeeded);

        using var still = From(first, Texts, arguments => Short(1)(arguments) with { LearningRate = 0 });
        using var moved = From(first, Texts, Short(2));
        still.Run().ShouldBe(TrainingOutcome.Succeeded);
        moved.Run().ShouldBe(TrainingOutcome.Succeeded);

        moved.Messages.ShouldContain($"Going on from a trained adapter ({method.Split(' ')[0]}, sha256 {StartingAdapters.DigestOf(first.AdapterFolder)})");
        if (method is not "ADALORA") // it prunes ranks by the step, whatever the rate
        {
            WorstChange(first, still).ShouldBeLessThan(1e-5);
            WorstChange(first, moved).ShouldBeGreaterThan(1e-5);
        }

        still.Losses[0].ShouldBe(moved.Losses[0], 1e-6);
    }

    [Fact]
    public void Run_FromATrainedAdapter_BeginsWithItsLoss()
    {
        using var first = new TrainingRun(Texts, change: arguments => Short(20)(arguments) with { PerDeviceTrainBatchSize = 6 }, dropout: 0);
        first.Run();

        using var second = From(first, Texts, arguments => Short(2)(arguments) with { PerDeviceTrainBatchSize = 6 });
        second.Run().ShouldBe(TrainingOutcome.Succeeded);

        second.Losses[0].ShouldBeLessThan(0.8 * first.Losses[0]);
        second.Losses[0].ShouldBeLessThan(first.Losses[^1] + 0.05);
    }

    [Fact]
    public void Run_FromAnEncodedPrompt_SaysThatItsEncoderIsGone()
    {
        using var first = new TrainingRun(Texts, change: Short(1), peft: new Engine.Adapters.PTuning.PTuningConfig());
        first.Run();
        using var second = From(first, Texts, Short(1));

        Should.Throw<AdapterException>(() => second.Run()).Message.ShouldContain("a loaded one cannot train on");
    }

    [Fact]
    public void Run_StoppedAndResumed_GivesTheBytesOfOneThatWasNot()
    {
        using var first = new TrainingRun(Texts);
        first.Run();
        using var whole = From(first, Texts, Short(6));
        using var stopped = From(first, Texts, Short(6));

        whole.Run().ShouldBe(TrainingOutcome.Succeeded);
        stopped.Run(3, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);
        stopped.Run().ShouldBe(TrainingOutcome.Succeeded);

        File.ReadAllBytes(stopped.Weights).ShouldBe(File.ReadAllBytes(whole.Weights));
        TrainingManifest.Read(Path.Combine(whole.AdapterFolder, TrainingManifest.FileName)).StartingAdapterSha256.ShouldBe(StartingAdapters.DigestOf(first.AdapterFolder));
    }

    [Fact]
    public void Run_ResumedFromAnotherAdapter_SaysSo()
    {
        using var first = new TrainingRun(Texts, change: Short(1));
        using var other = new TrainingRun(Texts, change: Short(2));
        first.Run();
        other.Run();
        using var run = From(first, Texts, Short(6));
        run.Run(2, StopRequest.Pause).ShouldBe(TrainingOutcome.Paused);

        CopyOver(other.AdapterFolder, first.AdapterFolder);

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("starting_adapter: the checkpoint in this run folder is of a run that started from");
    }

    [Fact]
    public void Differences_OfAnotherStartingAdapter_NamesBoth()
    {
        using var first = new TrainingRun(Texts, change: Short(1));
        first.Run();
        using var run = From(first, Texts, Short(1));
        run.Run();
        var manifest = TrainingManifest.Read(Path.Combine(run.AdapterFolder, TrainingManifest.FileName));

        manifest.Differences(run.Spec).ShouldBeEmpty();
        manifest.Differences(run.Spec with { StartingAdapter = null }).Single().ShouldContain("this one from none");
        manifest.Differences(run.Spec with { StartingAdapter = run.AdapterFolder }).Single().ShouldContain(StartingAdapters.DigestOf(run.AdapterFolder));
    }

    [Theory]
    [InlineData("""{ "r": 4 }""", null)]
    [InlineData("""{ "peft_type": "LORA", "target_modules": ["v_proj", "q_proj"], "inference_mode": false }""", null)]
    [InlineData("""{ "r": 16 }""", "r")]
    [InlineData("""{ "peft_type": "IA3" }""", "peft_type")]
    [InlineData("""{ "target_modules": ["q_proj"] }""", "target_modules")]
    [InlineData("""{ "lora_dropout": 0.5 }""", "lora_dropout")]
    public void Read_SettingsBesideAStartingAdapter_MustBeItsOwn(string given, string? fault)
    {
        using var first = new TrainingRun(Texts, change: Short(1), peft: new LoraConfig { R = 4, TargetModules = ModuleSelector.Of("q_proj", "v_proj") });
        first.Run();
        var fields = JsonSerializer.SerializeToNode(first.Spec, PeftJson.Options)!.AsObject();
        fields["starting_adapter"] = TrainingSpec.AdapterFolder;
        fields["peft"] = JsonNode.Parse(given);
        var path = Path.Combine(first.Folder, TrainingSpec.FileName);
        File.WriteAllText(path, fields.ToJsonString());

        if (fault is null)
        {
            var spec = TrainingSpec.Read(path);
            spec.StartingAdapter.ShouldBe(first.AdapterFolder);
            ((LoraConfig)spec.Peft).R.ShouldBe(4);
            return;
        }

        var thrown = Should.Throw<AdapterException>(() => TrainingSpec.Read(path));
        thrown.Field.ShouldBe(fault);
        thrown.Message.ShouldContain("leave " + fault + " out");
    }

    [Fact]
    public void Run_FromAClassifier_KeepsTheOrderOfItsClasses()
    {
        using var first = new TrainingRun(Classes, new TrainingMethod { Type = TrainingMethodType.Classification, Classification = new ClassificationSettings { Labels = ["spam", "ham", "other"] } }, Short(2));
        first.Run();

        using var second = From(first, Classes, Short(1), new TrainingMethod { Type = TrainingMethodType.Classification });
        second.Run().ShouldBe(TrainingOutcome.Succeeded);
        StartingAdapters.LabelsOf(second.AdapterFolder).ShouldBe(["spam", "ham", "other"]);

        using var others = From(first, Classes, Short(1), new TrainingMethod { Type = TrainingMethodType.Classification, Classification = new ClassificationSettings { Labels = ["ham", "spam"] } });
        Should.Throw<TrainingException>(() => others.Run()).Message.ShouldContain("labels");
        using var writer = From(first, Texts, Short(1));
        Should.Throw<TrainingException>(() => writer.Run()).Message.ShouldContain("starting_adapter: it was trained for SequenceClassification");
    }

    [Theory]
    [InlineData(TrainingMethodType.Dpo)]
    [InlineData(TrainingMethodType.Kto)]
    public void Run_AgainstTheStartingAdapter_BeginsWhereBothAgree(TrainingMethodType type)
    {
        using var first = new TrainingRun(Texts, dropout: 0);
        first.Run();

        using var run = From(first, type is TrainingMethodType.Kto ? Judged : Pairs, arguments => Short(3)(arguments) with { PerDeviceTrainBatchSize = 6 }, new TrainingMethod { Type = type });
        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Messages.ShouldContain("The reference is a frozen copy of the adapter that the run starts from.");
        ((float)run.Losses[0]).ShouldBe(type is TrainingMethodType.Kto ? 0.5f : (float)Math.Log(2));
        run.Metrics("train_rewards/chosen").First().ShouldBe(0);
        run.Metrics("train_rewards/chosen").Last().ShouldNotBe(0);
    }

    /// <summary>The loss of the first step, by hand from two forward passes over the same tokens.</summary>
    [Theory]
    [InlineData(PreferenceReference.AdapterOff)]
    [InlineData(PreferenceReference.StartingAdapter)]
    public void Run_Dpo_HasTheLossOfTheReferenceThatWasAskedFor(PreferenceReference reference)
    {
        using var first = new TrainingRun(Texts, change: Short(10), dropout: 0);
        first.Run();
        var settings = new DpoSettings { Beta = 0.5, Reference = reference };
        using var run = From(first, Pairs, arguments => Short(2)(arguments) with { PerDeviceTrainBatchSize = 6 }, new TrainingMethod { Type = TrainingMethodType.Dpo, Dpo = settings });
        run.Run();

        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = (CausalLanguageModel)PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32);
        using var start = AdapterFile.Load(first.AdapterFolder, model);
        using var rows = File.OpenRead(run.Spec.TrainingFile);
        var pairs = PreferenceData.Read(rows, Samples.Tokenizer, new TrainingDataOptions { MaxLength = 512 }, TestContext.Current.CancellationToken).Pairs;
        var expected = pairs.Average(pair =>
        {
            double Ratio(int[] answer) => LogProb(model, [start], pair.PromptIds, answer) - LogProb(model, reference is PreferenceReference.AdapterOff ? [] : [start], pair.PromptIds, answer);
            return Math.Log(1 + Math.Exp(-0.5 * (Ratio(pair.ChosenIds) - Ratio(pair.RejectedIds))));
        });

        run.Losses[0].ShouldBe(expected, 1e-4 * expected);
        if (reference is PreferenceReference.AdapterOff)
        {
            Math.Abs(expected - Math.Log(2)).ShouldBeGreaterThan(1e-3);
        }
    }

    [Fact]
    public void Run_StartingAdapterAsReferenceWithoutOne_SaysSo()
    {
        using var run = new TrainingRun(Pairs, new TrainingMethod { Type = TrainingMethodType.Dpo, Dpo = new DpoSettings { Reference = PreferenceReference.StartingAdapter } });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("reference: it is starting_adapter, but the run starts from none");
    }

    private static double LogProb(CausalLanguageModel model, IReadOnlyList<Adapter> adapters, int[] prompt, int[] answer)
    {
        using var scope = NewDisposeScope();
        using var batch = ForwardBatch.Packed([[.. prompt, .. answer]], adapters, CPU);
        var scores = torch.nn.functional.log_softmax(model.Logits(model.Hidden(batch), batch), -1); // [n, v]
        return answer.Select((id, i) => (double)scores[prompt.Length + i - 1, id].item<float>()).Sum();
    }

    private static double WorstChange(TrainingRun one, TrainingRun other)
    {
        using var scope = NewDisposeScope();
        using var before = Open(one);
        using var after = Open(other);
        before.Header.Entries.Keys.Order().ShouldBe(after.Header.Entries.Keys.Order());
        return before.Header.Entries.Values.Where(entry => entry.Shape.Aggregate(1L, (a, b) => a * b) > 0)
            .Max(entry => before.Tensor(entry.Name).to(ScalarType.Float64).sub(after.Tensor(entry.Name).to(ScalarType.Float64)).abs().max().item<double>());
    }

    private static SafetensorsFile Open(TrainingRun run) => SafetensorsFile.Open(Directory.GetFiles(run.AdapterFolder, "adapter*.safetensors").Single());

    private static TrainingRun From(TrainingRun first, string[] rows, Func<TrainingArguments, TrainingArguments> change, TrainingMethod? method = null) =>
        new(rows, method, change, start: first.AdapterFolder);

    private static Func<TrainingArguments, TrainingArguments> Short(int steps) => arguments => arguments with { MaxSteps = steps };

    private static void CopyOver(string from, string to)
    {
        foreach (var file in Directory.GetFiles(from))
        {
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)), overwrite: true);
        }
    }
}
