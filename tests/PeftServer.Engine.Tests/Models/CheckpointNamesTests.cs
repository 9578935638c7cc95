using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Models;

/// <summary>Checkpoints as they are on the Hub: without the body's name, with another head, under old names, tied twice over.</summary>
public sealed class CheckpointNamesTests : IDisposable
{
    private const string Bert = """
        {"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
         "max_position_embeddings": 8, "type_vocab_size": 2}
        """;

    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-names-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Load_OtherHead_DrawsItFromTheSeedAndKeepsTheBody()
    {
        Save(Bert, weight => weight.Path);
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.SequenceClassification, seed: 3);
        using var again = PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.SequenceClassification, seed: 3);
        using var other = PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.SequenceClassification, seed: 4);

        var (first, second, third) = (Weight(model, "classifier.weight"), Weight(again, "classifier.weight"), Weight(other, "classifier.weight"));
        first.Minus(second).abs().max().item<float>().ShouldBe(0);
        first.Minus(third).abs().max().item<float>().ShouldBeGreaterThan(0);
        first.abs().max().item<float>().ShouldBeInRange(0.001f, 0.2f);
        Weight(model, "classifier.bias").abs().max().item<float>().ShouldBe(0);
        Weight(model, "bert.embeddings.word_embeddings.weight").sum().item<float>().ShouldNotBe(0);
    }

    [Fact]
    public void Load_BodyWithoutItsName_IsFound()
    {
        Save(Bert.Replace("BertForMaskedLM", "BertModel", StringComparison.Ordinal), weight => weight.Path);

        using var model = PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.TokenClassification);

        model.Weights().ShouldAllBe(weight => weight.IsLoaded);
    }

    [Fact]
    public void Load_NormsNamedAsInTensorFlow_AreRead()
    {
        Save(Bert, weight => weight.Path.Replace("LayerNorm.weight", "LayerNorm.gamma", StringComparison.Ordinal).Replace("LayerNorm.bias", "LayerNorm.beta", StringComparison.Ordinal));

        using var model = PretrainedModel.Load(_folder, CPU, ScalarType.Float32);

        model.Weights().ShouldAllBe(weight => weight.IsLoaded);
    }

    [Fact]
    public void Load_TiedHeadSavedWithOtherValues_IsAnError()
    {
        Save(Bert, weight => weight.Path, ("cls.predictions.decoder.weight", [12, 8]));

        Should.Throw<CheckpointException>(() => PretrainedModel.Load(_folder, CPU, ScalarType.Float32)).Message.ShouldContain("cls.predictions.decoder.weight");
    }

    [Fact]
    public void Load_LayerThatTheConfigDoesNotHave_IsAnErrorUnderAnyHead()
    {
        Save(Bert, weight => weight.Path, ("bert.encoder.layer.1.output.dense.bias", [8]));

        Should.Throw<CheckpointException>(() => PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.SequenceClassification)).Message.ShouldContain("layer.1");
    }

    [Fact]
    public void Load_PretrainingHead_IsLeftOutForAnotherAndRefusedForItself()
    {
        Save(Bert, weight => weight.Path, ("cls.seq_relationship.weight", [2, 8]));
        File.WriteAllText(Path.Combine(_folder, "config.json"), Bert.Replace("BertForMaskedLM", "BertForPreTraining", StringComparison.Ordinal));

        using var model = PretrainedModel.Load(_folder, CPU, ScalarType.Float32, ModelHead.SequenceClassification);

        Should.Throw<CheckpointException>(() => PretrainedModel.Plan(_folder)).Message.ShouldContain("BertForPreTraining");
    }

    private static Tensor Weight(PretrainedModel model, string path) => model.Weights().Single(weight => weight.Path == path).Value;

    /// <summary>Saves a random model of the config, under other names, with tensors of no place beside it.</summary>
    private void Save(string config, Func<Weight, string> name, params (string Name, long[] Shape)[] more)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(1);
        var tensors = PretrainedModel.Plan(PretrainedConfig.Parse(config)).Weights().Select(weight => (Name: name(weight), Shape: weight.Shape.ToArray())).Concat(more)
            .ToDictionary(entry => entry.Name, entry => rand(entry.Shape, generator: generator));
        SafetensorsWriter.Write(Path.Combine(_folder, SafetensorsCheckpoint.SingleFile), tensors);
        File.WriteAllText(Path.Combine(_folder, "config.json"), config);
    }
}
