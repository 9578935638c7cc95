using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>A base under two heads is in memory once, and each of them goes by itself.</summary>
public sealed class SharedTensorsTests
{
    [Fact]
    public void Load_UnderTwoHeads_HoldsTheSameTensorsAndGivesTheSameNumbers()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var shared = new SharedTensors();
        using var golden = new Golden(GoldenFolder.PathOf("models", "llama"));
        using var writer = (LanguageModel)PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float64, shared: shared); // another type than the file's
        var reader = PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float64, ModelHead.SequenceClassification, shared: shared);
        using var apart = PretrainedModel.Load(golden.Folder, CPU, ScalarType.Float64);

        var byPath = reader.Weights().ToDictionary(weight => weight.Path);
        var common = writer.Weights().Where(weight => byPath.ContainsKey(weight.Path)).ToList();
        common.Count.ShouldBeGreaterThan(10);
        var first = common[0];
        var before = first.Value.clone();
        first.Value.zero_();
        byPath[first.Path].Value.count_nonzero().item<long>().ShouldBe(0); // the same memory
        apart.Weights().Single(weight => weight.Path == first.Path).Value.count_nonzero().item<long>().ShouldBeGreaterThan(0);
        first.Value.copy_(before);

        reader.Dispose();
        shared.Dispose();
        using var batch = ForwardBatch.Packed(golden.Rows().Rows, [], CPU);
        var (_, places) = golden.Rows();
        var logits = writer.Logits(writer.Hidden(batch), batch);
        Golden.ShouldAgree("logits", logits, golden["logits"].flatten(0, 1).index_select(0, tensor(places.SelectMany(at => at).ToArray())).to(ScalarType.Float64), 1e-4);
    }
}
