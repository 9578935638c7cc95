using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Weights;

/// <summary>The way of weights through two buffers: the same code as to a GPU, whose buffers are pinned.</summary>
public sealed class StagedReaderTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-staged-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData(ScalarType.Float32, ScalarType.Float32)]
    [InlineData(ScalarType.Float32, ScalarType.BFloat16)]
    [InlineData(ScalarType.BFloat16, ScalarType.Float32)]
    [InlineData(ScalarType.Int64, ScalarType.Int64)]
    public void CopyNext_TensorsLongerThanTheBuffers_ArriveWholeAndConverted(ScalarType stored, ScalarType wanted)
    {
        using var scope = NewDisposeScope();
        Tensor[] tensors = [Values(stored, 100, 7), Values(stored, 3), Values(stored, 0, 4), Values(stored, 1), Values(stored, 64, 5)];
        var regions = tensors.SelectMany((tensor, i) => Save($"{i}.safetensors", tensor)).ToList();

        using var reader = new StagedReader(regions, CPU, bufferBytes: 64);
        foreach (var tensor in tensors)
        {
            var target = empty(tensor.shape, dtype: wanted);
            reader.CopyNext(target);
            target.ne(tensor.to(wanted)).any().item<bool>().ShouldBeFalse();
        }

        Should.Throw<InvalidOperationException>(() => reader.CopyNext(empty(1)));
    }

    [Fact]
    public void CopyNext_FileCutWhileItIsRead_IsAClearError()
    {
        using var scope = NewDisposeScope();
        var region = Save("cut.safetensors", Values(ScalarType.Float32, 100)).Single();
        using (var file = File.OpenWrite(region.Path))
        {
            file.SetLength(file.Length - 200);
        }

        using var reader = new StagedReader([region], CPU, bufferBytes: 64);

        Should.Throw<CheckpointException>(() => reader.CopyNext(empty(100))).Message.ShouldContain("cut.safetensors ends inside a tensor");
    }

    [Fact]
    public void Dispose_BeforeAllIsTaken_EndsTheReading()
    {
        using var scope = NewDisposeScope();
        var region = Save("long.safetensors", Values(ScalarType.Float32, 10_000)).Single();

        new StagedReader([region], CPU, bufferBytes: 64).Dispose();
    }

    private static Tensor Values(ScalarType dtype, params long[] shape)
    {
        using var generator = new Generator(1);
        return randn(shape, generator: generator).Times(100).to(dtype);
    }

    private List<FileRegion> Save(string name, Tensor tensor)
    {
        var path = Path.Combine(_folder, name);
        SafetensorsWriter.Write(path, new Dictionary<string, Tensor> { ["t"] = tensor });
        using var file = SafetensorsFile.Open(path);
        return [file.Region("t")];
    }
}
