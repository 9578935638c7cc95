using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Models;

/// <summary>
/// A checkpoint of a language model under every other head that its architecture has: it loads, with the head drawn, and LoRA learns three rows.
/// </summary>
public sealed class NewHeadTests
{
    private static string Models => Path.Combine(Samples.Goldens, "models");

    public static IEnumerable<TheoryDataRow<string, ModelHead>> Cases =>
        from folder in Directory.GetDirectories(Models).Order(StringComparer.Ordinal)
        let name = Path.GetFileName(folder)
        where !name.StartsWith("x_", StringComparison.Ordinal) && Kind(folder) is "causal" or "seq2seq" or "mlm"
        from head in new[] { ModelHead.SequenceClassification, ModelHead.TokenClassification, ModelHead.QuestionAnswering }
        where !(name == "bart" && head is ModelHead.TokenClassification) // transformers has none
        select new TheoryDataRow<string, ModelHead>(name, head);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Load_LanguageModelUnderAnotherHead_Learns(string name, ModelHead head)
    {
        using var scope = NewDisposeScope();
        using var model = (ClassificationModel)PretrainedModel.Load(Path.Combine(Models, name), CPU, ScalarType.Float32, head, seed: 5, labels: ["A", "B", "C"]);
        model.Drawn.ShouldNotBeEmpty();
        model.Weights().ShouldAllBe(weight => weight.IsLoaded);
        using var adapter = new LoraConfig { R = 4, TargetModules = ModuleSelector.AllLinear, TaskType = Task(head), ModulesToSave = ["score", "classifier", "qa_outputs", "classification_head"] }.CreateAdapter(model);
        adapter.Initialize(1);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);

        var losses = new List<float>();
        for (var step = 0; step < 12; step++)
        {
            using var one = NewDisposeScope();
            var loss = Loss(model, adapter);
            loss.backward();
            optimizer.Step(2e-2);
            optimizer.ZeroGrad();
            losses.Add(loss.item<float>());
        }

        losses.ShouldAllBe(loss => float.IsFinite(loss));
        losses[^1].ShouldBeLessThan(0.8f * losses[0], string.Join(" ", losses));
    }

    private static Tensor Loss(ClassificationModel model, Adapter adapter)
    {
        int[][] rows = [[5, 17, 33, 8, 21, 1], [40, 6, 11, 1], [7, 30, 44, 23, 1]];
        using var batch = ForwardBatch.Packed(rows, [adapter], CPU);
        var scores = model.Predict(batch);
        return model.Kind switch
        {
            PredictionKind.Sequence => ClassificationLoss.Of(model.Problem, scores, tensor([0L, 1, 2])),
            PredictionKind.Token => ClassificationLoss.Of(model.Problem, scores, tensor(rows.SelectMany(row => row.Select(id => (long)(id % 3))).ToArray())),
            _ => ClassificationLoss.OfSpans(scores.narrow(0, 0, 6).unsqueeze(0), tensor([2L]), tensor([4L])),
        };
    }

    private static TaskType Task(ModelHead head) => head switch
    {
        ModelHead.SequenceClassification => TaskType.SequenceClassification,
        ModelHead.TokenClassification => TaskType.TokenClassification,
        _ => TaskType.QuestionAnswering,
    };

    private static string Kind(string folder)
    {
        using var meta = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "meta.json")));
        return meta.RootElement.GetProperty("kind").GetString()!;
    }
}
