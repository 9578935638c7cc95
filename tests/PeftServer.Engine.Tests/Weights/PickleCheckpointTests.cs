using System.IO.Compression;
using System.Text;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Tests.Weights;

/// <summary>PyTorch's .bin files: real ones, and what an attacker would put in their place.</summary>
public sealed class PickleCheckpointTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-bin-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>The files of AdapterHub's reference cases were written by torch.save, beside the same tensors as safetensors.</summary>
    [Theory]
    [InlineData("seq_bn__bert_cls", "pytorch_adapter.bin", "adapter.safetensors")]
    [InlineData("seq_bn__bert_cls", "pytorch_model_head.bin", "model_head.safetensors")]
    public void OpenFile_WrittenByTorchSave_HoldsTheSafetensorsTensors(string name, string bin, string safetensors)
    {
        var folder = Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "adapterhub", name, "init");
        using var scope = NewDisposeScope();
        using var checkpoint = PickleCheckpoint.OpenFile(Path.Combine(folder, bin));
        using var expected = SafetensorsFile.Open(Path.Combine(folder, safetensors));

        checkpoint.Names.Order(StringComparer.Ordinal).ShouldBe(expected.Header.Entries.Keys.Order(StringComparer.Ordinal));
        foreach (var key in checkpoint.Names)
        {
            var (ours, theirs) = (checkpoint.Tensor(key), expected.Tensor(key));
            ours.shape.ShouldBe(theirs.shape);
            ours.Minus(theirs).abs().max().item<float>().ShouldBe(0, key);
        }
    }

    [Fact]
    public void Open_TransposedTensor_IsReadByItsStrides()
    {
        // {"w": a 2×3 view with strides (1, 2) at offset 1 of a storage of 8 floats}
        Write(Tensor("w", offset: 1, shape: [2, 3], strides: [1, 2], length: 8), storage: [0, 1, 2, 3, 4, 5, 6, 7]);
        using var scope = NewDisposeScope();
        using var checkpoint = PickleCheckpoint.Open(_folder);

        checkpoint.Tensor("w").shape.ShouldBe([2L, 3]);
        checkpoint.Tensor("w").flatten().data<float>().ToArray().ShouldBe([1f, 3, 5, 2, 4, 6]);
    }

    [Fact]
    public void Open_CallOfASystemFunction_IsRefusedByName()
    {
        Write([0x80, 2, .. "cos\nsystem\n"u8, (byte)'X', 2, 0, 0, 0, .. "id"u8, 0x85, (byte)'R', (byte)'.']);

        Should.Throw<CheckpointException>(() => PickleCheckpoint.Open(_folder)).Message.ShouldContain("os.system");
    }

    [Fact]
    public void Open_InstructionThatMakesObjects_IsRefused()
    {
        Write([0x80, 2, (byte)')', 0x81, (byte)'.']); // NEWOBJ

        Should.Throw<CheckpointException>(() => PickleCheckpoint.Open(_folder)).Message.ShouldContain("0x81");
    }

    [Fact]
    public void Open_TensorBeyondItsStorage_IsRefused()
    {
        Write(Tensor("w", offset: 4, shape: [2, 3], strides: [3, 1], length: 8), storage: new float[8]);

        Should.Throw<CheckpointException>(() => PickleCheckpoint.Open(_folder)).Message.ShouldContain("beyond its storage");
    }

    [Fact]
    public void Open_StorageShorterThanItClaims_IsRefusedOnReading()
    {
        Write(Tensor("w", offset: 0, shape: [1000, 1000], strides: [1000, 1], length: 1_000_000), storage: new float[8]);
        using var checkpoint = PickleCheckpoint.Open(_folder);

        Should.Throw<CheckpointException>(() => checkpoint.Tensor("w")).Message.ShouldContain("too short");
    }

    [Fact]
    public void Open_FileOfOldPyTorch_NamesTheRemedy()
    {
        File.WriteAllBytes(Path.Combine(_folder, PickleCheckpoint.SingleFile), [0x80, 2, 0x8a, 10, 1, 2, 3]);

        Should.Throw<CheckpointException>(() => PickleCheckpoint.Open(_folder)).Message.ShouldContain("PyTorch 1.6");
    }

    [Fact]
    public void Open_MutatedPickle_EndsInATensorOrAClearError()
    {
        var program = Tensor("w", offset: 1, shape: [2, 3], strides: [1, 2], length: 8);
        var random = new Random(3);
        for (var i = 0; i < 2_000; i++)
        {
            var mutated = (byte[])program.Clone();
            for (var n = random.Next(1, 4); n > 0; n--)
            {
                mutated[random.Next(mutated.Length)] = (byte)random.Next(256);
            }

            try
            {
                new Engine.Weights.Pickle.StateDictReader(mutated, "mutated").Read();
            }
            catch (CheckpointException)
            {
                // what a damaged file must end in
            }
        }
    }

    private void Write(byte[] program, float[]? storage = null)
    {
        using var archive = ZipFile.Open(Path.Combine(_folder, PickleCheckpoint.SingleFile), ZipArchiveMode.Create);
        Add(archive, "model/data.pkl", program);
        Add(archive, "model/byteorder", "little"u8.ToArray());
        Add(archive, "model/data/0", (storage ?? []).SelectMany(BitConverter.GetBytes).ToArray());
    }

    private static void Add(ZipArchive archive, string name, byte[] bytes)
    {
        using var stream = archive.CreateEntry(name, CompressionLevel.NoCompression).Open();
        stream.Write(bytes);
    }

    /// <summary>The pickle that torch.save writes for a dictionary with one float32 tensor.</summary>
    private static byte[] Tensor(string name, int offset, int[] shape, int[] strides, int length) =>
    [
        0x80, 2, (byte)'}', .. Text(name), .. "ctorch._utils\n_rebuild_tensor_v2\n"u8, (byte)'(',
        (byte)'(', .. Text("storage"), .. "ctorch\nFloatStorage\n"u8, .. Text("0"), .. Text("cpu"), .. Number(length), (byte)'t', (byte)'Q',
        .. Number(offset), (byte)'(', .. shape.SelectMany(Number), (byte)'t', (byte)'(', .. strides.SelectMany(Number), (byte)'t', 0x89,
        .. "ccollections\nOrderedDict\n"u8, (byte)')', (byte)'R', (byte)'t', (byte)'R', (byte)'s', (byte)'.',
    ];

    private static byte[] Text(string text) => [(byte)'X', .. BitConverter.GetBytes(text.Length), .. Encoding.UTF8.GetBytes(text)];

    private static byte[] Number(int number) => [(byte)'J', .. BitConverter.GetBytes(number)];
}
