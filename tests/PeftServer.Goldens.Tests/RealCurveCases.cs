using System.Text;
using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;
using PeftServer.Engine.Training.Optimizers;
using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// Training of real models on real data, step by step beside PEFT: the same rows in the same order, losses within 1%, gradient norms within 2%. Weights, data and
/// curves are others' and lie beside the repository; where they do not, the tests are skipped and say so.
/// </summary>
[Trait("Category", "Long")]
public sealed class RealCurveCases
{
    private const double LossTolerance = 0.01, NormTolerance = 0.02;

    private static readonly string Shared = Environment.GetEnvironmentVariable("PEFTSERVER_SHARED") is { Length: > 0 } given
        ? given : Path.Combine(GoldenFolder.RepositoryRoot(), "..", "shared");

    [Theory]
    [InlineData("spam")]
    [InlineData("banking77")]
    [InlineData("snips")]
    public void SmolLm2_FineTuned_FollowsPeftsCurve(string data)
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
        using var task = new SupervisedTask(order, new AutogradStep(model, adapter), model, adapter, new SftSettings());

        Follow(result, task, adapter, log => (log.GetProperty("loss").GetDouble(), log.GetProperty("lr").GetDouble(), log.GetProperty("grad_norm").GetDouble()));
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
        using var task = new ClassificationTask([.. Rows(result).Select(row => byLine[row + 1])], model, adapter, new ClassificationSettings());

        Follow(result, task, adapter, log => (log[1].GetDouble(), log[2].GetDouble(), log[3].GetDouble()));
    }

    /// <summary>Takes the steps of a curve; the rows of the task are in the order in which they are met.</summary>
    private static void Follow(JsonDocument result, TrainingTask task, Adapter adapter, Func<JsonElement, (double Loss, double Rate, double Norm)> read)
    {
        var settings = result.RootElement.GetProperty("optimizer");
        var batch = result.RootElement.GetProperty("batch").GetInt32();
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, settings.GetProperty("weight_decay").GetDouble());
        var (step, next) = (0, 0);
        foreach (var expected in result.RootElement.GetProperty("log").EnumerateArray().Select(read))
        {
            using var scope = NewDisposeScope();
            var rows = Enumerable.Range(next, Math.Min(batch, task.Rows - next)).ToArray();
            next += rows.Length;
            optimizer.ZeroGrad();
            var loss = task.Window([rows], seed: 0).Single().ForwardBackward(null).Loss.item<float>();
            var norm = optimizer.ClipGradients(settings.GetProperty("max_grad_norm").GetDouble()).item<float>();
            optimizer.Step(expected.Rate);
            task.AdapterChanged();

            (Math.Abs(loss - expected.Loss) <= LossTolerance * expected.Loss).ShouldBeTrue($"loss of step {step}: {loss}, PEFT {expected.Loss}");
            (Math.Abs(norm - expected.Norm) <= NormTolerance * expected.Norm).ShouldBeTrue($"gradient norm of step {step}: {norm}, PEFT {expected.Norm}");
            step++;
        }
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
}
