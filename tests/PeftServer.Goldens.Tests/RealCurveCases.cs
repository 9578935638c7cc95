using System.Text;
using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Training.Tasks;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// Training of real models on real data, step by step beside PEFT: the same rows in the same order, losses within 1%, gradient norms within 2%, and the adapter that
/// comes out. Weights, data and curves are others' and lie beside the repository; where they do not, the tests are skipped and say so.
/// </summary>
[Trait("Category", "Long")]
public sealed class RealCurveCases
{
    private const double LossTolerance = 0.01, NormTolerance = 0.02, TrainedTolerance = 1e-3;

    private static readonly string Shared = Environment.GetEnvironmentVariable("PEFTSERVER_SHARED") is { Length: > 0 } given
        ? given : Path.Combine(GoldenFolder.RepositoryRoot(), "..", "shared");

    [Theory]
    [InlineData("spam", false)]
    [InlineData("spam", true)]
    [InlineData("banking77", false)]
    [InlineData("banking77", true)]
    [InlineData("snips", false)]
    [InlineData("snips", true)]
    public void SmolLm2_FineTuned_FollowsPeftsCurve(string data, bool byHand)
    {
        var (weights, curve, rows) = (In("samples", "smollm2"), In("goldens", "real", $"smollm2-{data}"), In("samples", "datasets", data, "train.jsonl"));
        using var result = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(curve, "result.json")));
        using var scope = NewDisposeScope();
        using var model = (CausalLanguageModel)PretrainedModel.Load(weights, CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(In("goldens", "real", "lora-init"), model);
        var options = new TrainingDataOptions { MaxLength = result.RootElement.GetProperty("max_tokens").GetInt32() };
        var read = TrainingData.Read(rows, Tokenizer.Load(weights), options, TestContext.Current.CancellationToken);
        var byLine = read.Rows.ToDictionary(row => row.Line);
        TrainingRow[][] order = [.. Rows(result).Select(row => new[] { byLine[row + 1] })];
        TrainingTask Task()
        {
            ITrainingStep step = byHand ? new FastLlamaStep(model, adapter, new CpuBlockKernels()) : new AutogradStep(model, adapter);
            return new SupervisedTask(order, step, model, adapter, new SftSettings());
        }

        Follow(result, Task, adapter, log => new(log.GetProperty("loss").GetDouble(), log.GetProperty("lr").GetDouble(), log.GetProperty("grad_norm").GetDouble(), log.GetProperty("tokens").GetInt32()));
        TrainedShouldAgree(curve, adapter);
    }

    /// <summary>The reference's rows end with the answer's last token; ours, which TRL's trainer would make, with the line feed after it. So they are made here.</summary>
    [Fact]
    public void SmolLm2_Preferring_FollowsPeftsCurve()
    {
        var (weights, curve) = (In("samples", "smollm2"), In("goldens", "real", "smollm2-dpo"));
        var rows = File.ReadAllLines(In("samples", "datasets", "gsm8k-preferences", "train.jsonl"));
        using var result = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(curve, "result.json")));
        using var scope = NewDisposeScope();
        using var model = (CausalLanguageModel)PretrainedModel.Load(weights, CPU, ScalarType.Float32);
        using var adapter = AdapterFile.Load(In("goldens", "real", "lora-init"), model);
        var encoder = new ChatEncoder(Tokenizer.Load(weights));
        PreferenceRow[] pairs = [.. Rows(result).Select(row => Pair(rows[row], row + 1, encoder))];
        pairs.ShouldAllBe(pair => pair.PromptIds.Length + Math.Max(pair.ChosenIds.Length, pair.RejectedIds.Length) <= result.RootElement.GetProperty("max_tokens").GetInt32());
        TrainingTask Task() => new PreferenceTask(pairs, int.MaxValue, model, adapter, new DpoSettings { Beta = result.RootElement.GetProperty("beta").GetDouble() });

        Follow(result, Task, adapter, log => new(log.GetProperty("loss").GetDouble(), log.GetProperty("lr").GetDouble(), log.GetProperty("grad_norm").GetDouble()));
        TrainedShouldAgree(curve, adapter);
    }

    [Fact]
    public void MiniLm_Classifying_FollowsPeftsCurve()
    {
        var (weights, curve, rows) = (In("samples", "minilm"), In("goldens", "real", "minilm-spam"), In("samples", "datasets", "spam", "train.jsonl"));
        using var result = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(curve, "result.json")));
        var labels = result.RootElement.GetProperty("labels").EnumerateArray().Select(label => label.GetString()!).ToList();
        using var scope = NewDisposeScope();
        using var model = (ClassificationModel)PretrainedModel.Load(weights, CPU, ScalarType.Float32, ModelHead.SequenceClassification, labels: labels);
        using var adapter = AdapterFile.Load(Path.Combine(curve, "init"), model);
        using var texts = new MemoryStream(Encoding.UTF8.GetBytes(string.Join('\n', File.ReadLines(rows).Select(AsClass))));
        var options = new TrainingDataOptions { MaxLength = result.RootElement.GetProperty("max_length").GetInt32() };
        var read = ClassData.Read(texts, Tokenizer.Load(weights), options, labels, TestContext.Current.CancellationToken);
        var byLine = read.Rows.ToDictionary(row => row.Line);
        TrainingTask Task() => new ClassificationTask([.. Rows(result).Select(row => byLine[row + 1])], model, adapter, new ClassificationSettings());

        Follow(result, Task, adapter, log => new(log[1].GetDouble(), log[2].GetDouble(), log[3].GetDouble()));
    }

    /// <summary>Takes the steps of a curve, all of them; the rows of the task are in the order in which they are met. Fails at the end, naming the worst step.</summary>
    private static void Follow(JsonDocument result, Func<TrainingTask> create, Adapter adapter, Func<JsonElement, ExpectedStep> read)
    {
        var settings = result.RootElement.GetProperty("optimizer");
        var batch = result.RootElement.GetProperty("batch").GetInt32();
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, settings.GetProperty("weight_decay").GetDouble());
        using var task = create(); // the optimizer moves the weights, and the hand-written step looks for them as it begins
        var (next, losses, norms) = (0, new List<Deviation>(), new List<Deviation>());
        foreach (var expected in result.RootElement.GetProperty("log").EnumerateArray().Select(read))
        {
            using var scope = NewDisposeScope();
            var rows = Enumerable.Range(next, Math.Min(batch, task.Rows - next)).ToArray();
            next += rows.Length;
            optimizer.ZeroGrad();
            var window = task.Window([rows], seed: 0).Single();
            var loss = window.ForwardBackward(null).Loss.item<float>();
            var norm = optimizer.ClipGradients(settings.GetProperty("max_grad_norm").GetDouble()).item<float>();
            optimizer.Step(expected.Rate);
            task.AdapterChanged();

            losses.Add(new(losses.Count, loss, expected.Loss));
            norms.Add(new(norms.Count, norm, expected.Norm));
            TestContext.Current.TestOutputHelper?.WriteLine(FormattableString.Invariant($"{losses[^1]}; gradient norm {norms[^1].Actual:G6}, PEFT {expected.Norm:G6}: {norms[^1].Share:P3}"));
            if (expected.Tokens is { } tokens)
            {
                window.Shape.TokenCount.ShouldBe(tokens, $"tokens of step {losses.Count - 1}");
            }
        }

        var (worstLoss, worstNorm) = (losses.MaxBy(step => step.Share)!, norms.MaxBy(step => step.Share)!);
        TestContext.Current.TestOutputHelper?.WriteLine($"Worst loss: {worstLoss}. Worst gradient norm: {worstNorm}.");
        worstLoss.Share.ShouldBeLessThanOrEqualTo(LossTolerance, $"The worst loss: {worstLoss}");
        worstNorm.Share.ShouldBeLessThanOrEqualTo(NormTolerance, $"The worst gradient norm: {worstNorm}");
    }

    /// <summary>The norms of all trained matrices, and some of them whole.</summary>
    private static void TrainedShouldAgree(string curve, Adapter adapter)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(curve, "golden.safetensors"));
        var trained = adapter.State.ToDictionary(entry => entry.Key.Replace("base_model.model.", "", StringComparison.Ordinal), entry => entry.Weight.Value);
        var errors = expected.Header.Entries.Keys.Where(name => !name.StartsWith("batch0.", StringComparison.Ordinal)).Select(name =>
        {
            using var scope = NewDisposeScope();
            var isNorm = name.StartsWith("norm.", StringComparison.Ordinal);
            var ours = trained[isNorm ? name["norm.".Length..] : name];
            return (Name: name, IsNorm: isNorm, Error: Golden.Error(isNorm ? ours.norm().reshape(1) : ours, expected.Tensor(name)));
        }).ToList();
        foreach (var kind in errors.GroupBy(each => each.IsNorm))
        {
            var worst = kind.MaxBy(each => each.Error);
            TestContext.Current.TestOutputHelper?.WriteLine(FormattableString.Invariant($"Worst of {kind.Count()} trained {(kind.Key ? "norms" : "matrices")}: {worst.Name}, {worst.Error:E2}."));
            worst.Error.ShouldBeLessThanOrEqualTo(TrainedTolerance, worst.Name);
        }
    }

    private static PreferenceRow Pair(string line, int number, ChatEncoder encoder)
    {
        using var row = JsonDocument.Parse(line);
        var asked = row.RootElement.GetProperty("input").GetProperty("messages");
        var (prompt, chosen) = Encode(encoder, asked, row.RootElement.GetProperty("preferred_output"));
        var (_, rejected) = Encode(encoder, asked, row.RootElement.GetProperty("non_preferred_output"));
        return new PreferenceRow(prompt, chosen, rejected, number);
    }

    private static (int[] Prompt, int[] Answer) Encode(ChatEncoder encoder, JsonElement asked, JsonElement answer)
    {
        var messages = asked.EnumerateArray().Concat(answer.EnumerateArray()).Select(message => (message.GetProperty("role").GetString()!, message.GetProperty("content").GetString()!)).ToArray();
        var chat = encoder.EncodeTraining(Conversation.Of(messages), message => message == messages.Length - 1).Single();
        var (start, end) = (Array.IndexOf(chat.Trained, true), Array.LastIndexOf(chat.Trained, true) + 1);
        return (chat.Ids[..start], chat.Ids[start..end]);
    }

    private static IEnumerable<int> Rows(JsonDocument result) => result.RootElement.GetProperty("rows").EnumerateArray().Select(row => row.GetInt32());

    /// <summary>A chat about a mail as a mail and its class.</summary>
    private static string AsClass(string line)
    {
        using var chat = JsonDocument.Parse(line);
        var messages = chat.RootElement.GetProperty("messages").EnumerateArray().ToDictionary(message => message.GetProperty("role").GetString()!, message => message.GetProperty("content").GetString()!);
        return JsonSerializer.Serialize(new { text = messages["user"], label = messages["assistant"] });
    }

    private static string In(params string[] parts)
    {
        var path = Path.GetFullPath(Path.Combine([Shared, .. parts]));
        Assert.SkipUnless(Path.Exists(path), $"There is no {path}: real weights, data and curves are not part of this repository. PEFTSERVER_SHARED names another place.");
        return path;
    }

    private sealed record ExpectedStep(double Loss, double Rate, double Norm, int? Tokens = null);

    private sealed record Deviation(int Step, double Actual, double Expected)
    {
        public double Share => Math.Abs(Actual - Expected) / Expected;

        public override string ToString() => FormattableString.Invariant($"step {Step}: {Actual:G6}, PEFT {Expected:G6}: {Share:P3}");
    }
}
