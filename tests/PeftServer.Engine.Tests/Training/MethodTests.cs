using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Tests.Training;

/// <summary>A short run of every method that is neither supervised nor a comparison of answers.</summary>
public sealed class MethodTests
{
    private static readonly string[] Pairs = [.. Enumerable.Range(0, 6).Select(i =>
        $$"""{"prompt": "Colour {{i}}: ", "chosen": "blue {{i}}", "rejected": "a very long red {{i}}", "margin": 0.5}""")];

    private static readonly string[] Classes = [.. Enumerable.Range(0, 12).Select(i => $$"""{"text": "{{(i % 2 == 0 ? "good day to you" : "buy cheap pills")}} {{i}}", "label": "{{(i % 2 == 0 ? "ham" : "spam")}}"}""")];

    private static readonly string[] Tagged = [.. Enumerable.Range(0, 8).Select(i => $$"""{"tokens": ["we", "met", "Ann{{i}}", "in", "Rome"], "ner_tags": ["O", "O", "B-PER", "O", "B-LOC"]}""")];

    private static readonly string[] Questions = [.. Enumerable.Range(0, 6).Select(i =>
        $$$"""{"question": "where is it?", "context": "number {{{i}}} is in rome today", "answers": {"text": ["rome"], "answer_start": [{{{$"number {i} is in ".Length}}}]}}""")];

    private static readonly string[] Sources = [.. Enumerable.Range(0, 8).Select(i => $$"""{"source": "number {{i}}", "target": "the number is {{i}}"}""")];

    private static readonly string[] Alike = [.. Enumerable.Range(0, 8).Select(i => $$"""{"anchor": "what is {{i}}", "positive": "{{i}} is a number", "negative": "blue sky"}""")];

    private static readonly string[] Scored = [.. Enumerable.Range(0, 8).Select(i => $$"""{"sentence1": "what is {{i}}", "sentence2": "{{i}} is a number", "score": {{i}}}""")];

    private static readonly string[] Texts = [.. Enumerable.Range(0, 4).Select(i => $$"""{"text": "{{string.Concat(Enumerable.Repeat("all good things come to an end ", 10 + i))}}"}""")];

    [Fact]
    public void Run_Reward_PrefersTheChosen()
    {
        using var run = new TrainingRun(Pairs, new TrainingMethod { Type = TrainingMethodType.Reward, Reward = new RewardSettings { CenterRewardsCoefficient = 0.01 } }, arguments => arguments with { MaxSteps = 10 });

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Metrics("train_margin").Last().ShouldBeGreaterThan(0);
        AdapterFile.ReadConfig(run.AdapterFolder).TaskType.ShouldBe(TaskType.SequenceClassification);
    }

    [Fact]
    public void Run_Classification_LearnsTheClassesAndSavesTheirNames()
    {
        using var run = new TrainingRun(
            Classes, new TrainingMethod { Type = TrainingMethodType.Classification }, arguments => arguments with { MaxSteps = 24, PerDeviceTrainBatchSize = 4, EvalSteps = 24 }, evaluated: Classes);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Metrics("valid_accuracy").Last().ShouldBe(1);
        run.Metrics("valid_f1").Last().ShouldBe(1);
        File.ReadAllText(Path.Combine(run.AdapterFolder, AdapterCompanions.LabelsName)).ReplaceLineEndings("").Replace(" ", "").ShouldBe("""["ham","spam"]""");

        // What was saved is what was trained: loaded onto a fresh base it scores as it did.
        using var model = PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32, ModelHead.SequenceClassification, labels: ["ham", "spam"]);
        using var adapter = AdapterFile.Load(run.AdapterFolder, model);
        using var frozen = no_grad();
        using var batch = ForwardBatch.Packed([Samples.Tokenizer.Encode("buy cheap pills 3")], [adapter], CPU);
        ((ClassificationModel)model).Predict(batch).argmax(-1).item<long>().ShouldBe(1);
    }

    [Fact]
    public void Run_TokenClassification_FindsTheEntities()
    {
        using var run = new TrainingRun(
            Tagged, new TrainingMethod { Type = TrainingMethodType.TokenClassification }, arguments => arguments with { MaxSteps = 24, EvalSteps = 24 }, evaluated: Tagged);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Metrics("valid_f1").Last().ShouldBe(1);
    }

    [Fact]
    public void Run_QuestionAnswering_FindsTheAnswers()
    {
        using var model = SmallModel.Bert();
        using var run = new TrainingRun(
            Questions, new TrainingMethod { Type = TrainingMethodType.QuestionAnswering }, arguments => arguments with { MaxSteps = 60, PerDeviceTrainBatchSize = 6, EvalSteps = 60 },
            dropout: 0, model: model.Folder, evaluated: Questions);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Metrics("valid_exact_match").Last().ShouldBe(100);
        run.Metrics("valid_f1").Last().ShouldBe(100);
    }

    [Fact]
    public void Run_Seq2Seq_LowersTheLoss()
    {
        using var model = SmallModel.T5();
        using var run = new TrainingRun(
            Sources, new TrainingMethod { Type = TrainingMethodType.Seq2Seq, Seq2Seq = new Seq2SeqSettings { LabelSmoothingFactor = 0.1 } },
            arguments => arguments with { MaxSteps = 12, EvalSteps = 12 }, model: model.Folder, evaluated: Sources);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Metrics("valid_perplexity").Last().ShouldBeGreaterThan(1);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Run_Embedding_BringsTogetherWhatIsAlike(bool scored)
    {
        using var model = SmallModel.Bert();
        using var run = new TrainingRun(
            scored ? Scored : Alike, new TrainingMethod { Type = TrainingMethodType.Embedding }, arguments => arguments with { MaxSteps = 20, PerDeviceTrainBatchSize = 8 }, dropout: 0, model: model.Folder);

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
    }

    [Fact]
    public void Run_Pretraining_LearnsEveryTokenInPieces()
    {
        using var run = new TrainingRun(Texts, new TrainingMethod { Type = TrainingMethodType.Pretraining }, arguments => arguments with { MaxSteps = 6, MaxLength = 32 });

        run.Run().ShouldBe(TrainingOutcome.Succeeded);

        run.Losses[^1].ShouldBeLessThan(run.Losses[0]);
        run.Messages.ShouldContain("Packed 4 rows into ");
    }

    [Fact]
    public void Run_TaskTypeOfAnotherMethod_IsRefused()
    {
        using var run = new TrainingRun(Classes, new TrainingMethod { Type = TrainingMethodType.Classification }, peft: new LoraConfig { TaskType = TaskType.CausalLm });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldStartWith("peft.task_type");
    }

    [Fact]
    public void Run_OneClass_IsRefused()
    {
        using var run = new TrainingRun(["""{"text": "a", "label": "b"}"""], new TrainingMethod { Type = TrainingMethodType.Classification });

        Should.Throw<TrainingException>(() => run.Run()).Message.ShouldContain("at least two");
    }
}
