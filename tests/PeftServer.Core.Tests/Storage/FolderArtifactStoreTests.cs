using System.Text;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using PeftServer.Core.Storage;

namespace PeftServer.Core.Tests.Storage;

public sealed class FolderArtifactStoreTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("peft-store-").FullName;
    private readonly FakeTimeProvider _clock = new(TimeProvider.System.GetUtcNow());
    private readonly FolderArtifactStore _store;

    public FolderArtifactStoreTests() =>
        _store = new FolderArtifactStore(Options.Create(new StorageOptions { Root = _root, Cache = Path.Combine(_root, "cache") }), _clock);

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Put_Bytes_AreFoundByTheirSha256()
    {
        var blob = await PutAsync("hello");

        blob.ShouldBe(new Blob("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", 5));
        using var reader = new StreamReader(await _store.OpenAsync(blob.Sha256, Now));
        (await reader.ReadToEndAsync(Now)).ShouldBe("hello");
    }

    [Fact]
    public async Task Put_SameBytesAtOnce_IsOneBlobAndNothingElse()
    {
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => PutAsync("same")));

        Directory.GetFiles(_root, "*", SearchOption.AllDirectories).Length.ShouldBe(1);
    }

    [Fact]
    public async Task Put_TooLarge_ThrowsAndLeavesNothing()
    {
        using var content = new MemoryStream(new byte[300_000]);

        (await Should.ThrowAsync<ArtifactTooLargeException>(() => _store.PutAsync(content, 299_999, Now))).MaxBytes.ShouldBe(299_999);

        Directory.GetFiles(_root, "*", SearchOption.AllDirectories).ShouldBeEmpty();
    }

    [Fact]
    public async Task Put_ClientGoesAway_LeavesNothing()
    {
        using var content = new BrokenStream();

        await Should.ThrowAsync<IOException>(() => _store.PutAsync(content, 1 << 20, Now));

        Directory.GetFiles(_root, "*", SearchOption.AllDirectories).ShouldBeEmpty();
    }

    [Fact]
    public async Task Delete_YoungBlob_IsSparedAndPuttingItAgainMakesItYoung()
    {
        var blob = await PutAsync("hello");
        var hour = TimeSpan.FromHours(1);

        (await _store.DeleteAsync(blob.Sha256, hour, Now)).ShouldBeFalse();
        _clock.Advance(TimeSpan.FromMinutes(90));
        await PutAsync("hello");
        (await _store.DeleteAsync(blob.Sha256, hour, Now)).ShouldBeFalse();
        _clock.Advance(TimeSpan.FromMinutes(90));
        (await _store.DeleteAsync(blob.Sha256, hour, Now)).ShouldBeTrue();
        (await _store.ExistsAsync(blob.Sha256, Now)).ShouldBeFalse();
    }

    [Theory]
    [InlineData("../../etc/passwd")]
    [InlineData("ABCDEF24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b98")]
    [InlineData("")]
    public async Task Open_NoSha256_Throws(string name) =>
        await Should.ThrowAsync<ArgumentException>(() => _store.OpenAsync(name, Now));

    [Fact]
    public async Task Open_UnknownBlob_SaysSo() =>
        await Should.ThrowAsync<ArtifactNotFoundException>(() => _store.OpenAsync(new string('0', 64), Now));

    public void Dispose() => Directory.Delete(_root, recursive: true);

    private async Task<Blob> PutAsync(string text)
    {
        using var content = new MemoryStream(Encoding.UTF8.GetBytes(text));
        return await _store.PutAsync(content, 1 << 20, Now);
    }

    private sealed class BrokenStream : MemoryStream
    {
        private bool _gone;

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (_gone)
            {
                throw new IOException("The client went away.");
            }

            _gone = true;
            return ValueTask.FromResult(10);
        }
    }
}
